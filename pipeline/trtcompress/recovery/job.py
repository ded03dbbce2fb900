"""One training from end to end, as each of its processes runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from trtcompress_graph.errors import TrtCompressError
from trtcompress_graph.model import Model
from trtcompress_graph.torch_view import to_torch

from ..stage import MetricRef
from .across import spread_norms
from .augment import Changes
from .batches import Batches
from .checkpoint import Unsaved, load, save_in_first
from .devices import given_back, part, repeatable
from .feed import Feed, as_labels, input_kinds, trusted_changes
from .learner import Learner, judging, make_terms, start_terms, teacher_view, tensors_of
from .loop import Loop, Outcome, Told
from .loss_names import LABELS
from .losses import LossOptions
from .losses.labels import Labels
from .losses.registry import Term
from .measured import Measured
from .norms import settle, takes_norms, view_with_norms
from .pairs import Pair, make_pair
from .pool import Ints, Pool
from .settings import LONG, Training, planned_steps
from .taps import tapped
from .thrift import frugal, share_equal
from .zeros import keep_zeros

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FIRST = 64
"""Samples of the batch that losses are fitted to."""

CLIPPED, BLOCKS, TRAINED = "clipped.pt", "blocks.pt", "trained.pt"
"""Weights after ranges were fitted, after the blocks were fitted one by one, and at the end."""


@dataclass(frozen=True, slots=True)
class Job:
    """A training: values that can go to another process.

    Attributes:
        folder: of the checkpoints; the trained weights are left there.
    """

    student: Model
    teacher: Model
    pool: Pool
    training: Training
    folder: Path
    metrics: tuple[MetricRef, ...] = ()

    @property
    def batches(self) -> Batches:
        """The batches of the training."""
        return Batches(self.pool, self.training.batch, self.training.seed)

    def view(self, norms: bool = False) -> fx.GraphModule:
        """The student as it is trained, with BatchNorm put back or not."""
        return to_torch(self.student, learn_scales=self.training.learn_scales, restore_batchnorm=norms)

    @property
    def loss_options(self) -> LossOptions:
        """How losses are made."""
        metrics = tuple(metric.name for metric in self.metrics)
        return LossOptions(self.training.temperature, metrics, self.pool.total, self.pool.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Subjects:
    """Student and teacher with the first samples.

    Attributes:
        runs: inputs of each pass that these take, in the order of the model.
        labels: of all of them; None where there are none, or of several shapes.
    """

    pair: Pair
    runs: tuple[tuple[Tensor, ...], ...]
    labels: Tensor | None


def open_subjects(job: Job, norms: bool = False) -> Subjects:
    """Make the torch views, with the weights that the fits before the training left.

    Args:
        job: the training.
        norms: BatchNorm is put back into the student.

    Raises:
        OperatorError: an operator that the view does not have.
        ModelError: the models cannot be compared.
    """
    found = load(job.folder / BLOCKS) or load(job.folder / CLIPPED)
    weights = found["weights"] if found is not None else None
    student = _channels_last(view_with_norms(job, weights) if norms else job.view())
    teacher = _channels_last(to_torch(job.teacher)).requires_grad_(False)
    keep_zeros(student, teacher)
    share_equal(student, teacher)
    if weights is not None and not norms:
        load_weights(student, weights)
    read = [_first_run(job, *rows) for rows in job.batches.first(FIRST)]
    runs, labelled = tuple(inputs for inputs, _ in read), [held for _, held in read if held is not None]
    alike = len({held.shape[1:] for held in labelled}) == 1  # boxes, say, are as many as a sample has
    labels = torch.cat(labelled) if alike else None
    return Subjects(make_pair(student, teacher, job.student, runs, labels), runs, labels)


def _first_run(job: Job, group: int, rows: Ints) -> tuple[tuple[Tensor, ...], Tensor | None]:
    arrays = job.pool.read(group, rows)
    inputs = tuple(torch.from_numpy(arrays[spec.name]) for spec in job.pool.inputs)
    return inputs, as_labels(job.pool.labels_of(group, rows), None if job.pool.fixed is None else len(inputs[0]))


def placed(pair: Pair, device: torch.device) -> Pair:
    """Both views on a device, where the teacher reads what it shares with the student.

    It comes before any part of a view is made: parts share the view's parameters, which move in place, but not its
    buffers, which are replaced, so that those of the view would stay behind.
    """
    pair.student.to(device)
    pair.teacher.to(device)
    share_equal(pair.student, pair.teacher)
    return pair


def _channels_last(view: fx.GraphModule) -> fx.GraphModule:
    """Weights of convolutions with their channels side by side, which takes half to two thirds of the time."""
    for parameter in view.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return view


def weights_of(view: fx.GraphModule) -> dict[str, Tensor]:
    """What is trained, by name; with running statistics, which a loop of the user's own may move."""
    return {name: value.detach().cpu() for name, value in view.state_dict().items()}


def weights_before_blocks(job: Job) -> dict[str, Tensor]:
    """What is trained as it was before blocks were fitted, by name."""
    found = load(job.folder / CLIPPED)
    weights: dict[str, Tensor] = weights_of(job.view()) if found is None else found["weights"]
    return weights


@torch.no_grad()
def load_weights(view: fx.GraphModule, weights: Mapping[str, Tensor]) -> None:
    """Put trained weights into a view."""
    view.load_state_dict(dict(weights))


def train(fabric: Fabric, job: Job, told: Told) -> dict[str, Any] | TrtCompressError | OSError:
    """Train in this process; the first one leaves the weights in `TRAINED`.

    Returns:
        An `Outcome`, as Fabric passes it from process to process; an error that all processes meet comes back as a
        value, so that the process that waits can tell that of the first one.

    Raises:
        OSError: one that this process may have met alone: it ends, and so do the others.
    """
    try:
        with given_back(), repeatable(job.training.seed, fabric.world_size):
            outcome = _train(fabric, job, told)
            part(fabric)
            return asdict(outcome)
    except (TrtCompressError, Unsaved) as error:
        # The traceback would keep the whole training alive, see `part`
        return error if fabric.world_size == 1 else error.with_traceback(None)
    except OSError as error:
        if fabric.world_size > 1:
            raise
        return error


def _train(fabric: Fabric, job: Job, told: Told) -> Outcome:
    norms = takes_norms(job)
    subjects = open_subjects(job, norms)
    pair = subjects.pair
    terms = make_terms(pair, job.training.losses, job.loss_options)
    start_terms(pair, terms, subjects.runs, subjects.labels)
    kinds = input_kinds(job.batches)
    changes = Changes()
    if _is_long(job) if job.training.augment is None else job.training.augment:
        mix = terms.keys() != {"labels"}
        outputs = tapped(pair.teacher, pair.outputs, pair.answers)
        changes = trusted_changes(job.batches, outputs, pair.answers, kinds, mix=mix)
        if job.training.augment and not changes and fabric.global_rank == 0:
            told("augment does nothing: the teacher answers alike to no change of these samples", 0, None)
    placed(pair, fabric.device)
    if norms:
        settle(pair.student, job, fabric.device)
    if norms and fabric.world_size > 1:
        spread_norms(pair.student)
    teacher = teacher_view(pair, terms)
    alone = graduates(job, pair, terms)
    if alone and fabric.global_rank == 0:
        told(
            "labels are enough: the teacher leads in the first half of the steps, and 'held out' is of labels", 0, None
        )
    judges = frozenset(tensors_of(judging(terms, graduates=alone)))
    feed = Feed(batches_of(job, terms), teacher, fabric.device, changes, kinds, fabric.autocast, judges=judges)
    student = tapped(pair.student, pair.outputs, tensors_of(terms))
    trained = frugal(student) if job.training.checkpoint_activations else student
    learner = Learner(pair, terms, trained, graduates=alone)
    metric = Measured.of(job, pair, feed)
    names = [ref.name for ref in job.metrics]
    loop = Loop(fabric, learner, feed, job.training, job.folder, told, metric, *names[:1], norms=norms)
    outcome = loop.run()
    save_in_first(fabric, {"weights": weights_of(pair.student), "norms": norms}, job.folder / TRAINED)
    return outcome


def batches_of(job: Job, terms: Mapping[str, tuple[float, Term]]) -> Batches:
    """The batches of a training, which know how many labels of each sample count where it learns from them."""
    term = terms[LABELS][1] if LABELS in terms else None
    if not isinstance(term, Labels) or job.pool.labels is None:
        return job.batches
    return replace(job.batches, counting=term.counting(job.pool.labels))


def graduates(job: Job, pair: Pair, terms: Mapping[str, tuple[float, Term]]) -> bool:
    """Whether the teacher only leads up to the labels: there are enough of each class, and nothing else was asked."""
    if not job.training.graduates or job.pool.labels is None:
        return False
    term = terms[LABELS][1]
    return isinstance(term, Labels) and term.stands_alone(
        job.pool.labels, pair.first.teacher[term.tensors[0]].shape[-1]
    )


def _is_long(job: Job) -> bool:
    """Whether samples come up so often that changed ones teach more than they disturb."""
    steps = planned_steps(job.training, job.batches.per_epoch)
    return steps is None or steps >= LONG * job.batches.per_epoch  # of minutes, the loop knows
