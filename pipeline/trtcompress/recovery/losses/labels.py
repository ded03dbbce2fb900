"""The labels of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trtcompress_graph.errors import DataError

from .answers import A_CLASS, Kind, kind_of, spread
from .registry import LossOptions, Seen, Term, loss

if TYPE_CHECKING:
    from ..pairs import Pair


IGNORED = -100
"""A class that does not count, as PyTorch has it."""

Labelled = Sequence[NDArray[Any]]
"""The labels of samples, one array each."""


class Form(Enum):
    """What labels hold, which all samples tell together: of a few of them it would change from batch to batch."""

    CLASSES = "numbers of classes"
    SHARES = "the share of each class, as one-hot ones do"
    CHANCES = "0 or 1 for each number of the output"
    NUMBERS = "numbers"


@loss("labels")
def labels(pair: Pair, options: LossOptions) -> Term:
    """The samples' own labels: cross-entropy for classes, binary for 0 and 1, squared error for numbers.

    Classes are numbered, or labels hold the share of each (one-hot ones do).
    """
    named = next((text.partition(":")[2] for text in options.metrics if ":" in text), "")
    name = named if named in pair.answers else pair.answers[0]
    answers = pair.first.teacher[name]
    kind = kind_of(name, answers, options.metrics, name == pair.answers[0])
    some = pair.first.labels
    if some is None:
        raise DataError("the loss 'labels' needs labels, and the samples have none", where="loss", hint="add 'labels'")
    return Labels(name, kind, form_of(kind, answers, some, options.labels or list(some.cpu().numpy())))


def form_of(kind: Kind, answers: Tensor, some: Tensor, labels: Labelled) -> Form:
    """What labels hold; reads all of them where they are no classes.

    Args:
        kind: what the output holds.
        answers: of the teacher to some samples.
        some: labels of these.
        labels: of all samples.
    """
    classes = answers.shape[-1] if answers.dim() > 1 else 1
    if classes > 1 and not some.is_floating_point() and some.shape == answers.shape[:-1]:
        return Form.CLASSES  # whatever the output holds: it has as many numbers as there are classes
    if some.numel() != answers.numel():
        return Form.NUMBERS  # which do not fit, see `Labels.forward`
    if kind is not Kind.NUMBERS and all(_shares_classes(label, classes) for label in labels):
        return Form.SHARES
    inside = kind is Kind.SCORES or bool(((answers >= 0) & (answers <= 1)).all())
    binary = all(np.isin(label, (0, 1)).all() for label in labels)
    return Form.CHANCES if binary and (inside or not some.is_floating_point()) else Form.NUMBERS


def _how_to_fit(wanted: Tensor, answers: Tensor) -> str:
    if wanted.numel() == answers[..., 0].numel():  # one for each sample, but not as classes are told
        return f"classes are integers of the shape {list(answers.shape[:-1])}: cast or squeeze them"
    return "give the class of each sample as an integer, or numbers of the output's shape"


def _shares_classes(label: NDArray[Any], classes: int) -> bool:
    rows = np.asarray(label, np.float64).reshape(-1, classes)
    return bool((rows >= 0).all() and (np.abs(rows.sum(-1) - 1) < 1e-3).all())


class Labels(Term):
    """Of the output that the first metric names, else of the first output.

    Attributes:
        form: what labels hold.
    """

    final = True

    def __init__(self, name: str, kind: Kind, form: Form) -> None:
        super().__init__()
        self.tensors = (name,)
        self.form = form
        self._kind = kind
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("chances", torch.zeros((), dtype=torch.bool))

    def start(self, seen: Seen) -> None:
        """Measure how widely labels that are numbers lie, and whether answers are chances already, and no scores."""
        if seen.labels is not None:
            self.spread = spread(seen.labels)
        answers = seen.teacher[self.tensors[0]]
        self.chances = ((answers >= 0) & (answers <= 1)).all()

    def stands_alone(self, labels: Labelled, classes: int) -> bool:
        """Whether labels say enough without a teacher: classes, and so many of each that none is learnt by heart.

        Args:
            labels: of all samples.
            classes: that the output has.
        """
        if self.form is not Form.CLASSES or self._kind is Kind.NUMBERS:
            return False  # the teacher does not answer as with classes: it goes on to lead
        counts = np.zeros(classes, np.int64)
        for label in labels:
            flat = label.ravel().astype(np.int64)
            counts += np.bincount(flat[flat != IGNORED], minlength=classes)
        return int(counts.min()) >= A_CLASS

    def counting(self, labels: Labelled) -> NDArray[np.int64] | None:
        """How many numbers of each label count; None where those of all samples do alike.

        Args:
            labels: of all samples.
        """
        if self.form is not Form.CLASSES:
            return None
        found = np.fromiter((np.count_nonzero(label != IGNORED) for label in labels), np.int64, len(labels))
        return found if len(np.unique(found)) > 1 else None

    def forward(self, seen: Seen) -> Tensor:
        """The loss of a batch."""
        answers, wanted = seen.student[self.tensors[0]], seen.labels
        if wanted is None:  # samples that were mixed
            return answers.new_zeros(())
        if self.form is Form.CLASSES:
            wanted = wanted.long()  # of uint8 labels, 156 would equal -100
            found = functional.cross_entropy(
                self._scores(answers).flatten(0, -2), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
            )
            return found / (wanted != IGNORED).sum().clamp_min(1)  # of a batch that has none that counts: 0
        if wanted.numel() != answers.numel():
            raise DataError(
                f"labels of shape {list(wanted.shape)} do not fit answers of shape {list(answers.shape)}",
                where=f"output '{self.tensors[0]}'",
                hint=_how_to_fit(wanted, answers),
            )
        wanted = wanted.reshape(answers.shape).float()
        match self.form:
            case Form.SHARES:
                return -(wanted * functional.log_softmax(self._scores(answers), -1)).sum(-1).mean()
            case Form.CHANCES if bool(self.chances):
                return functional.binary_cross_entropy(answers.clamp(0, 1), wanted)
            case Form.CHANCES:
                return functional.binary_cross_entropy_with_logits(answers, wanted)
            case _:
                return (answers - wanted).square().mean() / self.spread

    def _scores(self, answers: Tensor) -> Tensor:
        """Scores of classes, also where the output holds probabilities."""
        return answers.clamp_min(1e-8).log() if self._kind is Kind.PROBABILITIES else answers
