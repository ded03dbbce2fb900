"""The registry of losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from torch import Tensor, nn

from ...registered import registered
from ..loss_names import LABELLED, NAMES

if TYPE_CHECKING:
    from ..pairs import Pair


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What student and teacher made of one batch.

    Attributes:
        student: outputs and inner tensors by name, in float32.
        teacher: the same, without gradients.
        labels: of the samples, stacked; None where there are none.
    """

    student: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor]
    labels: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LossOptions:
    """How losses are made.

    Attributes:
        temperature: of distributions over classes; None: by the number of samples.
        metrics: names of the user's metrics, which tell what the outputs are.
        samples: that there are to learn from.
        labels: of all samples; None: those of the first batch tell enough.
    """

    temperature: float | None = None
    metrics: tuple[str, ...] = ()
    samples: int = 1 << 30
    labels: Sequence[NDArray[Any]] | None = None


class Term(nn.Module):
    """A loss that was made for a pair. Parameters of its own (projections) are trained with the student's.

    Attributes:
        tensors: names of the tensors that it reads, of both models.
        final: it looks at the outputs, and so can say how good a student is.
    """

    tensors: tuple[str, ...] = ()
    final = False

    def start(self, seen: Seen) -> None:
        """Fit what belongs to the term to a first batch, before any training."""

    def forward(self, seen: Seen) -> Tensor:
        """The loss of a batch, a scalar of the order of 1 for a student that knows nothing."""
        raise NotImplementedError


Make = Callable[["Pair", LossOptions], Term]


@dataclass(frozen=True, slots=True)
class Loss:
    """A way to compare a student with its teacher.

    Attributes:
        make: the term for a pair.
        needs_labels: it reads the labels of the samples.
        about: one line for the user.
    """

    name: str
    make: Make
    needs_labels: bool
    about: str


LOSSES: dict[str, Loss] = {}


def loss(name: str) -> Callable[[Make], Make]:
    """Register a loss; the first line of its docstring tells users what it is.

    Raises:
        ValueError: the name is taken, or does not stand in `loss_names.NAMES`.
    """

    def keep(function: Make) -> Make:
        if name in LOSSES or name not in NAMES:
            raise ValueError(f"{name} is there already, or not in NAMES")
        about = (function.__doc__ or "").strip().splitlines()[0]
        LOSSES[name] = Loss(name, function, name in LABELLED, about)
        return function

    return keep


def find_loss(name: str) -> Loss:
    """The loss of this name.

    Raises:
        UsageError: there is none.
    """
    return registered(LOSSES, name, "loss")
