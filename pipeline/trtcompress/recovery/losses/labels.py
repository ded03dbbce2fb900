"""The labels of the samples."""

from __future__ import annotations

from collections.abc import Sequence
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


@loss("labels")
def labels(pair: Pair, options: LossOptions) -> Term:
    """The samples' own labels: cross-entropy for classes, binary for 0 and 1, squared error for numbers.

    Classes are numbered, or labels hold the share of each (one-hot ones do).
    """
    named = next((text.partition(":")[2] for text in options.metrics if ":" in text), "")
    name = named if named in pair.answers else pair.answers[0]
    kind = kind_of(name, pair.first.teacher[name], options.metrics, name == pair.answers[0])
    if pair.first.labels is None:
        raise DataError("the loss 'labels' needs labels, and the samples have none", where="loss", hint="add 'labels'")
    return Labels(name, kind)


class Labels(Term):
    """Of the output that the first metric names, else of the first output."""

    final = True

    def __init__(self, name: str, kind: Kind) -> None:
        super().__init__()
        self.tensors = (name,)
        self._kind = kind
        self.register_buffer("spread", torch.ones(()))

    def start(self, seen: Seen) -> None:
        """Measure how widely labels that are numbers lie."""
        if seen.labels is not None:
            self.spread = spread(seen.labels)

    def names_classes(self, answers: Tensor, labels: Tensor) -> bool:
        """Whether labels are classes of the last axis of the answers, and not numbers."""
        whole = not labels.is_floating_point()
        return self._kind is not Kind.NUMBERS and whole and labels.shape == answers.shape[:-1]

    def stands_alone(self, seen: Seen, labels: Sequence[NDArray[Any]]) -> bool:
        """Whether labels say enough without a teacher: classes, and so many of each that none is learnt by heart.

        Args:
            seen: a first batch.
            labels: of all samples.
        """
        answers = seen.teacher[self.tensors[0]]
        if seen.labels is None or not self.names_classes(answers, seen.labels):
            return False
        flat = np.concatenate([label.ravel() for label in labels]).astype(np.int64)
        counts = np.bincount(flat[flat != IGNORED], minlength=answers.shape[-1])
        return int(counts.min()) >= A_CLASS

    def forward(self, seen: Seen) -> Tensor:
        """The loss of a batch."""
        answers, wanted = seen.student[self.tensors[0]], seen.labels
        if wanted is None:  # samples that were mixed
            return answers.new_zeros(())
        if self.names_classes(answers, wanted):
            scores = answers if self._kind is Kind.SCORES else answers.clamp_min(1e-8).log()
            return functional.cross_entropy(scores.flatten(0, -2), wanted.flatten().long(), ignore_index=IGNORED)
        if wanted.numel() != answers.numel():
            raise DataError(
                f"labels of shape {list(wanted.shape)} do not fit answers of shape {list(answers.shape)}",
                where=f"output '{self.tensors[0]}'",
                hint="give the class of each sample, or numbers of the output's shape",
            )
        wanted_floats, wanted = wanted.is_floating_point(), wanted.reshape(answers.shape).float()
        if self._kind is not Kind.NUMBERS and shares_classes(wanted):
            scores = answers if self._kind is Kind.SCORES else answers.clamp_min(1e-8).log()
            return -(wanted * functional.log_softmax(scores, -1)).sum(-1).mean()
        chances = bool(((answers >= 0) & (answers <= 1)).all()) and bool(((wanted >= 0) & (wanted <= 1)).all())
        if not wanted_floats and chances:
            return functional.binary_cross_entropy(answers, wanted)
        return (answers - wanted).square().mean() / self.spread


def shares_classes(labels: Tensor) -> bool:
    """Whether labels hold the share of each class along the last axis, as one-hot ones do."""
    return bool((labels >= 0).all()) and bool(((labels.sum(-1) - 1).abs() < 1e-3).all())
