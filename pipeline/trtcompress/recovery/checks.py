"""What is looked at before a training starts: samples, labels, and losses that have to fit the models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.errors import DataError

from .devices import processes_of
from .job import Job, Subjects, open_subjects
from .learner import make_terms
from .loss_names import COMPARING, LABELLED
from .losses.labels import IGNORED, Form, Labels
from .pool import Pool

_NUMBERS = "iubf"
"""Kinds of arrays that hold numbers."""


def check_job(job: Job) -> None:
    """Refuse what a training would fail at later.

    Raises:
        DataError: too few samples, or labels that do not fit the outputs.
        UsageError: a loss that does not fit the models.
        ModelError, OperatorError: see `open_subjects`.
    """
    _check_counts(job)
    losses = job.training.losses
    if not losses:
        return  # the usual ones fit
    labelled = [name for name, _ in losses if name in LABELLED]
    if labelled:
        _check_labels(job, labelled[0])
    subjects = open_subjects(replace(job, folder=job.folder / "none"))  # as it came, without what blocks learnt
    terms = make_terms(subjects.pair, losses, job.loss_options)
    for _, term in terms.values():
        if isinstance(term, Labels):
            _check_fit(job, subjects, term)


def _check_counts(job: Job) -> None:
    needed = max(1, job.training.devices)
    if job.pool.total < needed:
        raise DataError(
            f"there are {job.pool.total} samples for {needed} processes",
            where=job.pool.source,
            hint="give more samples, or fewer --devices",
        )
    compares = [name for name, _ in job.training.losses if name in COMPARING]
    group, rows = job.batches.first(job.training.batch)[0]
    if compares and len(rows) < 2:
        raise DataError(
            f"the loss '{compares[0]}' compares the samples of a batch, and here a batch holds one",
            where=job.pool.source,
            hint="give more samples or a greater batch, or leave this loss out, as with a model of fixed batch 1",
        )
    processes = processes_of(job.training)
    if compares and job.batches.is_open(group) and len(rows) < 2 * processes:
        raise DataError(
            f"the loss '{compares[0]}' compares the samples that a process holds: the {len(rows)} of a batch are fewer "
            f"than two for each of {processes} processes",
            where=job.pool.source,
            hint=f"give a batch of {2 * processes} or more and as many samples, or fewer --devices",
        )


def _check_labels(job: Job, loss: str) -> None:
    """Labels are there, are numbers, and those of samples that share a batch have one shape."""
    pool, hint = job.pool, "give one label for each sample, or learn from the teacher's outputs alone"
    if pool.labels is None:
        hint = "add an array 'labels', or learn from the teacher's outputs alone"
        raise DataError(f"the loss '{loss}' needs labels, and {lacking(pool)}", where=pool.source, hint=hint)
    for place, label in enumerate(pool.labels):
        if label.dtype.kind not in _NUMBERS:
            raise DataError(f"its label is no number: {label!r:.60}", where=f"{pool.source}: sample {place}", hint=hint)
        if label.dtype.kind == "f" and not np.isfinite(label).all():
            raise DataError("its label holds NaN or infinity", where=f"{pool.source}: sample {place}", hint=hint)
    for group in pool.groups:
        first = pool.labels.shape(group.places[0])
        for place in group.places:
            if group.stacks and pool.labels.shape(place) != first:
                raise DataError(
                    f"its label has the shape {list(pool.labels.shape(place))}, that of sample {group.places[0]} "
                    f"{list(first)}: samples of equal inputs need labels of one shape",
                    where=f"{pool.source}: sample {place}",
                    hint="pad the labels to one length; a class of -100 does not count",
                )


def lacking(pool: Pool) -> str:
    """Why samples count as unlabelled."""
    return "the samples have none" if pool.unlabelled is None else f"sample {pool.unlabelled} has none"


def _check_fit(job: Job, subjects: Subjects, term: Labels) -> None:
    """Labels are classes that the output has, or as many numbers as it has."""
    (output,) = term.tensors
    answers = subjects.pair.first.teacher[output]
    if term.form is not Form.CLASSES:
        term(subjects.pair.first)  # refuses what does not fit
        return
    assert job.pool.labels is not None
    classes, counts = answers.shape[-1], False
    for place, label in enumerate(job.pool.labels):
        counts = counts or bool((label != IGNORED).any())
        wrong = _outside(label, classes)
        if wrong is not None:
            raise DataError(
                f"its label is {wrong}, and the output '{output}' has the classes 0 to {classes - 1}",
                where=f"{job.pool.source}: sample {place}",
                hint=f"number the classes from 0; {IGNORED} stands for a label that does not count",
            )
    if not counts:
        raise DataError(
            f"all labels are {IGNORED}: none of them counts",
            where=job.pool.source,
            hint="number the classes from 0, or learn from the teacher's outputs alone",
        )


def _outside(label: NDArray[Any], classes: int) -> int | None:
    wrong = label[(label != IGNORED) & ((label < 0) | (label >= classes))]
    return int(wrong.flat[0]) if wrong.size else None
