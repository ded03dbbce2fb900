"""Recovery of a student from files to a file, for the stages and for `trtcompress recover`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trtcompress_graph.errors import RecoverError, TrtCompressError
from trtcompress_graph.model import Model

from ..config import RecoverSettings
from ..digests import library_version
from ..stage import FunctionRef, MetricRef
from .pace import SCANT
from .settings import USUAL_BATCH, Training, fits_blocks

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset

    from .job import Job
    from .loop import Outcome, Told

VERSION = 9
"""Of the training: a checkpoint of another one is not gone on with."""

TRAINING = "training"
"""Folder of the checkpoints, beside the samples."""


@dataclass(frozen=True, slots=True)
class Recovered(Model):
    """A student that was trained.

    Attributes:
        steps: that were made; 0 with a training loop of the user's own, which says nothing.
        best_step: after which it was best.
        rate: learning rate that was taken.
        before, after: loss at the outputs on samples that are held out.
        metric_before, metric: on the same samples, where there are labels and a metric.
        samples: that were there.
        notes: what a user should know.
    """

    FINGERPRINT: ClassVar = ("digest", "inputs", "outputs")
    steps: int
    best_step: int
    rate: float
    before: float | None
    after: float | None
    metric_before: float | None
    metric: float | None
    samples: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be recovered from what.

    Attributes:
        work: folder for samples and checkpoints; a training that lies there is gone on with. Removed at the end.
        metrics: the first one is told on the samples that are held out.
        function: the user's own training loop.
        replaces: checkpoints of another training in `work` are removed; else they are refused.
    """

    student: Model
    teacher: Model
    settings: RecoverSettings
    out: Path
    work: Path
    metrics: tuple[MetricRef, ...] = ()
    function: FunctionRef | None = None
    replaces: bool = False


def recover(request: Request, data: Dataset, told: Told) -> Recovered:
    """Train the student and write it to `out`.

    Raises:
        ModelError: student and teacher differ in their inputs or outputs.
        OperatorError: an operator that the torch view does not have.
        DataError: samples that do not fit, or too few.
        UsageError: an unknown loss, or one that does not fit the models.
        RecoverError: the training diverges, or the user's loop fails.
    """
    from .checkpoint import holds_training
    from .pairs import check_alike

    check_alike(request.student, request.teacher)
    there = holds_training(request.work / TRAINING)
    try:
        job = _opened(request, data, told)
        outcome = _train(request, job, told)
        made = _write(request, job)
    except TrtCompressError as error:  # a divergence would come again; another machine or option may be mended
        if not there or isinstance(error, RecoverError):
            shutil.rmtree(request.work, ignore_errors=True)
        raise
    shutil.rmtree(request.work, ignore_errors=True)
    return _recovered(made, outcome, job, tuple(data.notes))


def _opened(request: Request, data: Dataset, told: Told) -> Job:
    """The training with its samples and its folder, all checked."""
    from .checkpoint import holds_training, open_folder
    from .checks import check_job
    from .halves import in_float32
    from .job import Job
    from .pool import fill

    student, teacher = (
        in_float32(model, request.work / "float32" / name)
        for name, model in (("student.onnx", request.student), ("teacher.onnx", request.teacher))
    )
    pool = fill(
        data,
        student.inputs,
        request.work / "samples",
        data.source,
        lambda done: told("read samples", done, data.total),
    )
    job = Job(
        student=student,
        teacher=teacher,
        pool=pool,
        training=training_of(request.settings),
        folder=request.work / TRAINING,
        metrics=request.metrics,
    )
    check_job(job)
    begun = job.folder.exists() and not holds_training(job.folder)
    if open_folder(job.folder, _facts(request, job), request.replaces):
        told("go on with the training that was there", 0, None)
    elif begun:
        told("a training that was there had not come to a checkpoint: it begins anew", 0, None)
    if request.function is None:
        for words in (*_parts(job), *_other_precision(job)):
            told(words, 0, None)
    return job


def training_of(settings: RecoverSettings) -> Training:
    """The settings as the training takes them."""
    from .loss_names import LABELS, weighted

    losses = tuple(weighted(settings.loss).items())
    graduates = settings.labels and LABELS not in dict(losses)  # who gives losses of their own has weighed them
    if graduates:
        losses = (*(losses or (("logits", 1.0),)), (LABELS, 1.0))
    return Training(
        losses=losses,
        temperature=settings.temperature,
        epochs=settings.epochs,
        steps=settings.steps,
        minutes=settings.minutes,
        optimizer=settings.optimizer,
        rate=settings.lr,
        batch=settings.batch or USUAL_BATCH,
        shrinks=settings.batch is None,
        blockwise=settings.blockwise,
        decay=settings.weight_decay,
        clip=settings.clip,
        average=settings.ema,
        patience=settings.patience,
        augment=settings.augment,
        precision=settings.precision,
        devices=settings.devices,
        checkpoint_activations=settings.checkpoint_activations,
        norms=settings.batchnorm,
        learn_scales=settings.learn_scales and settings.function is None,
        graduates=graduates,
        seed=settings.seed,
    )


def _train(request: Request, job: Job, told: Told) -> Outcome | None:
    """Train, and leave the weights in the job's folder; None with the user's own loop."""
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    from .blockwise import fit_blocks
    from .checkpoint import save
    from .devices import make_fabric
    from .job import TRAINED, train, weights_of
    from .loop import Outcome
    from .own_loop import run_own_loop
    from .progress import for_processes

    if request.function is not None:
        save({"weights": weights_of(run_own_loop(request.function, job)), "norms": False}, job.folder / TRAINED)
        return None
    fabric = make_fabric(job.training)
    if fits_blocks(job.training, job.pool.total):
        spent = fit_blocks(job, told) / 60
        minutes = job.training.minutes
        if minutes is not None:
            job = replace(job, training=replace(job.training, minutes=max(minutes - spent, 0.5 * minutes)))
    alone = job.training.devices == 1
    try:
        found = fabric.launch(partial(train, job=job, told=told if alone else for_processes))
    except (
        ProcessRaisedException,
        ProcessExitedException,
    ) as error:  # its first line tells nothing, its last one what was raised
        said = str(error).strip().splitlines()[-1]
        hint = "--devices 1 trains in one process; TRTCOMPRESS_TRACEBACK=1 shows where it was"
        raise RecoverError(f"a process of the training failed: {said}", where="recover", hint=hint) from error
    if isinstance(found, TrtCompressError):
        raise found
    return Outcome(**found)


def _write(request: Request, job: Job) -> Model:
    """The student with the weights that the training left."""
    from trtcompress_graph.torch_view import to_onnx

    from .checkpoint import load
    from .halves import in_halves
    from .job import TRAINED, load_weights

    found = load(job.folder / TRAINED)
    assert found is not None
    view = job.view(norms=found["norms"])
    load_weights(view, found["weights"])
    if job.student is request.student:
        return to_onnx(view, like=job.student, out=request.out)
    trained = to_onnx(view, like=job.student, out=request.work / "trained.onnx")
    return in_halves(trained, request.student, request.out)


def _facts(request: Request, job: Job) -> dict[str, object]:
    """All that a training depends on."""
    return {
        "version": VERSION,
        "student": job.student.digest,
        "teacher": job.teacher.digest,
        "data": job.pool.digest,
        "settings": request.settings.model_dump(mode="json"),
        "function": request.function and [request.function.source, request.function.digest],
        "metrics": [[metric.name, metric.digest] for metric in job.metrics],
        "libs": {name: library_version(name) for name in ("torch", "lightning-fabric")},
    }


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
        yield "of so many samples the minutes bring most to the whole student: no blocks first (--blockwise fits them)"


def _other_precision(job: Job) -> Iterator[str]:
    """The precision, where Lightning Fabric takes another one than was asked for."""
    import torch

    if job.training.precision == "16-mixed" and not torch.cuda.is_available():
        yield "16-mixed needs a GPU: on this CPU it is trained in bf16-mixed (--precision bf16-mixed says the same)"


def _notes(job: Job) -> Iterator[str]:
    yield from _other_precision(job)
    if not job.batches.holds_out:
        yield (
            f"only {job.pool.total} samples: none could be held out, so that the student was judged on those that it "
            "learnt from; a few hundred are better"
        )


def _recovered(made: Model, outcome: Outcome | None, job: Job, notes: tuple[str, ...]) -> Recovered:
    held = (made.path, made.digest, made.inputs, made.outputs)
    if outcome is None:
        return Recovered(*held, 0, 0, 0.0, None, None, None, None, job.pool.total, notes)
    notes = (*notes, *_notes(job))
    if job.training.minutes is not None and outcome.steps < SCANT:
        few = f"{job.training.minutes:g} minutes were enough for {outcome.steps} steps only: give it more"
        notes = (*notes, few)
    if outcome.after >= outcome.before:
        what = "made it fit labels better" if outcome.by_labels else "brought it nearer to the teacher"
        notes = (*notes, f"no step of the training {what} on samples that were held out")
    if outcome.rollbacks:
        notes = (*notes, f"numbers were not finite {outcome.rollbacks} times; the rate was halved each time")
    return Recovered(
        *held,
        steps=outcome.steps,
        best_step=outcome.best_step,
        rate=outcome.rate,
        before=outcome.before,
        after=outcome.after,
        metric_before=outcome.metric_before,
        metric=outcome.metric,
        samples=job.pool.total,
        notes=notes,
    )
