"""Recovery of a student from files to a file, for the stages and for `trtcompress recover`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trtcompress_graph.errors import RecoverError, TrtCompressError
from trtcompress_graph.model import Model

from ..config import RecoverSettings
from ..digests import library_version
from ..stage import FunctionRef, MetricRef
from .notes import notes_before, notes_behind
from .settings import fits_blocks, training_of

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset

    from .job import Job
    from .loop import Outcome, Told

VERSION = 17
"""Of the training: a checkpoint of another one is not gone on with."""

TRAINING = "training"
"""Folder of the checkpoints, beside the samples."""

ROUNDING = 1e-3
"""Share by which the loss of one student may differ from pass to pass, with norms put back or not."""


@dataclass(frozen=True, slots=True)
class Recovered(Model):
    """A student that was trained.

    Attributes:
        steps: that were made; 0 with a training loop of the user's own, which says nothing.
        best_step: after which it was best.
        rate: learning rate that was taken.
        before, after: loss at the outputs on samples that are held out, of the student as it came and as it left.
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
        restart: all that lies in `work` is removed first.
    """

    student: Model
    teacher: Model
    settings: RecoverSettings
    out: Path
    work: Path
    metrics: tuple[MetricRef, ...] = ()
    function: FunctionRef | None = None
    replaces: bool = False
    restart: bool = False


def recover(request: Request, data: Dataset, told: Told) -> Recovered:
    """Train the student and write it to `out`.

    Raises:
        ModelError: student and teacher differ in their inputs or outputs, or the student has nothing to train.
        OperatorError: an operator that the torch view does not have.
        DataError: samples that do not fit, or too few.
        UsageError: an unknown loss, or one that does not fit the models; another training runs in `work`.
        RecoverError: the training diverges, or the user's loop fails.
        StageError: one of several processes was killed or failed; what they came to stays in `work`.
        OSError: the disk is full, or takes nothing; what was trained so far stays in `work`.
    """
    from .checkpoint import alone_in, empty, holds_training
    from .pairs import check_alike
    from .trainable import untrained

    check_alike(request.student, request.teacher)
    with alone_in(request.work):
        if request.restart:
            empty(request.work)
        try:
            job = _opened(request, data, told)
            outcome = _train(request, job, told)
            made = _write(request, job)
        except (TrtCompressError, OSError) as error:  # a divergence would come again; all else may be mended
            if isinstance(error, RecoverError) or not holds_training(request.work / TRAINING):
                shutil.rmtree(request.work, ignore_errors=True)
            raise
        shutil.rmtree(request.work, ignore_errors=True)
    return _recovered(made, outcome, job, (*data.notes, *untrained(request.student)))


def _opened(request: Request, data: Dataset, told: Told) -> Job:
    """The training with its samples and its folder, all checked."""
    from trtcompress_graph.torch_view import to_torch

    from .checkpoint import holds_training, open_folder
    from .checks import check_job
    from .halves import in_float32
    from .job import Job
    from .pool import fill
    from .trainable import check_trainable, untrained

    student, teacher = (
        in_float32(model, request.work / "float32" / name)
        for name, model in (("student.onnx", request.student), ("teacher.onnx", request.teacher))
    )
    training = training_of(request.settings)
    to_torch(teacher)  # an operator that a view does not have is told before samples are read
    check_trainable(to_torch(student, learn_scales=training.learn_scales), request.student)
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
        training=training,
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
        for words in (*untrained(request.student), *notes_before(job)):
            told(words, 0, None)
    return job


def _train(request: Request, job: Job, told: Told) -> Outcome | None:
    """Train, and leave the weights in the job's folder; None with the user's own loop."""
    from .blockwise import fit_blocks
    from .checkpoint import save
    from .clipping import fit_clipping
    from .devices import make_fabric
    from .job import TRAINED, weights_of
    from .own_loop import run_own_loop
    from .processes import train_in_processes

    if request.function is not None:
        save({"weights": weights_of(run_own_loop(request.function, job)), "norms": False}, job.folder / TRAINED)
        return None
    fabric = make_fabric(job.training)
    fits = {"ranges": fit_clipping} | ({"blocks": fit_blocks} if fits_blocks(job.training, job.pool.total) else {})
    fitted = {what: fit(job, told, fabric.autocast) for what, fit in fits.items()}
    minutes, seconds = job.training.minutes, sum(fit.seconds for fit in fitted.values())
    if minutes is not None:
        job = replace(job, training=replace(job.training, minutes=max(minutes - seconds / 60, 0.5 * minutes)))
    outcome = train_in_processes(fabric, job, told)
    stood = {what: fit.came for what, fit in fitted.items() if fit.came is not None}
    if not stood:
        return outcome
    nearer = [what for what, came in stood.items() if came.comparable and outcome.before < (1 - ROUNDING) * came.loss]
    came = next(iter(stood.values()))
    return replace(
        outcome,
        fitted=nearer[-1] if nearer else "",
        came=came.loss if came.comparable else None,
        metric_before=came.metric,
    )


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


def _recovered(made: Model, outcome: Outcome | None, job: Job, notes: tuple[str, ...]) -> Recovered:
    from .judge import shown

    held = (made.path, made.digest, made.inputs, made.outputs)
    if outcome is None:
        return Recovered(*held, 0, 0, 0.0, None, None, None, None, job.pool.total, notes)
    notes = (*notes, *notes_behind(job, outcome))
    return Recovered(
        *held,
        steps=outcome.steps,
        best_step=outcome.best_step,
        rate=outcome.rate,
        before=shown(outcome.before if outcome.came is None else outcome.came),
        after=shown(outcome.after),
        metric_before=outcome.metric_before,
        metric=outcome.metric,
        samples=job.pool.total,
        notes=notes,
    )
