"""What a user should know of a training: before its first step, and when it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from trtcompress_graph.cost import stored_parameters
from trtcompress_graph.load import load_ir

from .pace import SCANT, steps_in_words
from .settings import fits_blocks

if TYPE_CHECKING:
    from trtcompress_graph.model import Model

    from .job import Job
    from .loop import Outcome

LOOKED_AT = 32
"""Samples that are read to see whether they differ."""

SWAPPED = 0.9
"""Of the student's weights; a teacher that has fewer may be the student."""


def notes_before(job: Job) -> Iterator[str]:
    """What the samples are for, and what is done otherwise than was asked for."""
    if _weights(job.teacher) < SWAPPED * _weights(job.student):
        yield "the teacher has fewer weights than the student: look whether they changed places"
    yield from _parts(job)
    yield from _equal_samples(job)
    yield from _other_precision(job)
    yield from _no_norms(job)


def notes_behind(job: Job, outcome: Outcome) -> Iterator[str]:
    """What should be known of a result; its samples are gone."""
    yield from _other_precision(job)
    if not job.batches.holds_out:
        count = f"{job.pool.total} samples" if job.pool.total > 1 else "1 sample"
        yield (
            f"only {count}: none could be held out, so that the student was judged on those that it learnt from; "
            "a few hundred are better"
        )
    if job.training.minutes is not None and outcome.steps < SCANT:
        yield f"{job.training.minutes:g} minutes were enough for {steps_in_words(outcome.steps)} only: give it more"
    if outcome.after >= outcome.before:
        what = "made it fit labels better" if outcome.by_labels else "brought it nearer to the teacher"
        lower = "" if job.training.rate is None else f": lower the learning rate, {job.training.rate:g} (lr)"
        so_far = f" than its {outcome.fitted} had" if outcome.fitted else ""
        yield f"no step of the training {what}{so_far} on samples that were held out{lower}"
    elif outcome.best_step == 0:
        yield (
            f"none of the {steps_in_words(outcome.steps)} was better than what the trials of learning rates had come "
            "to, which is kept"
        )
    if outcome.rollbacks:
        yield (
            f"it diverged {outcome.rollbacks} times (numbers that were not finite, or a loss far above the start); the "
            "rate was halved each time"
        )


def _weights(model: Model) -> int:
    """How many a model holds; quantized ones have as many, and a few scales beside them."""
    return stored_parameters(load_ir(model).graph)


def _equal_samples(job: Job) -> Iterator[str]:
    """Samples that are one and the same, by the first ones."""
    rows = np.arange(min(LOOKED_AT, len(job.pool.groups[0].places)))
    samples = [job.pool.read(0, rows[[place]]) for place in rows]
    alike = (np.array_equal(sample[name], samples[0][name]) for sample in samples[1:] for name in sample)
    if len(samples) > 1 and len(job.pool.groups) == 1 and all(alike):
        yield f"the first {len(samples)} samples are all equal: the student learns one answer of them, and no more"


def _parts(job: Job) -> Iterator[str]:
    """What the samples are for."""
    from .checks import lacking

    held = sum(len(rows) for rows in job.batches.held)
    measured = job.metrics[0].name if job.metrics and job.pool.labels is not None else None
    if held:
        told = "'held out' is" if measured is None else f"'held out' (a loss) and {measured} are"
        yield (
            f"{job.pool.total} samples: it learns from {job.pool.total - held}; {held} are held out, and {told} "
            "how well it does on those that it has not seen"
        )
    else:
        too = "" if measured is None else f", by {measured} too"
        yield f"{job.pool.total} samples: none can be held out, so that it is judged on those that it learns from{too}"
    if job.metrics and job.pool.labels is None:
        yield f"{job.metrics[0].name} is not told: it needs labels, and {lacking(job.pool)}"
    if job.training.blockwise is None and not fits_blocks(job.training, job.pool.total):
        yield "of so many samples the minutes bring most to the whole student: no blocks first (blockwise fits them)"


def _no_norms(job: Job) -> Iterator[str]:
    """Why BatchNorm is not trained with, where it was asked for."""
    from trtcompress_graph.torch_view.module import META

    from .norms import why_not

    if job.training.norms:
        why = why_not(job) or (
            "" if job.view(norms=True).meta[META]["restored"] else "there is no convolution that one could be behind"
        )
        if why:
            yield f"batchnorm does nothing: {why}"


def _other_precision(job: Job) -> Iterator[str]:
    """The precision, where Lightning Fabric takes another one than was asked for."""
    import torch

    if job.training.precision == "16-mixed" and not torch.cuda.is_available():
        yield "16-mixed needs a GPU: on this CPU it is trained in bf16-mixed (precision bf16-mixed says the same)"
