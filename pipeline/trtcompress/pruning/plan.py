"""The plan of a cut: what was kept of each tensor, why, and what it costs before and after. Written as JSON.

Applied again to the same model (with the same samples, where weights were solved anew) it gives the same bytes. A file
is not trusted: what it says has to fit together here, and to fit the model where it is applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from trtcompress_graph.errors import DataError
from trtcompress_graph.model import TensorSpec

VERSION = 1

LARGEST_INPUT = 1 << 30
"""Elements of one input; a plan that asks for more is a mistake that would end in a lack of memory."""

Count = Annotated[int, Field(ge=0, strict=True)]
Length = Annotated[int, Field(ge=1, strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cost(_Part):
    """What one pass costs, at the shapes of the plan."""

    macs: Count
    parameters: Count


class TensorCut(_Part):
    """What is kept of one axis of one weight."""

    tensor: str
    axis: Count
    length: Length = Field(description="before the cut")
    kept: tuple[Count, ...] = Field(description="indices that stay, rising; of each row, one behind the other")


class GroupCut(_Part):
    """What is kept of one group.

    Attributes:
        units: how many there were.
        kept: how many stay.
        scores: of each unit, in the order of the group; low ones go first.
        gone: places of the units that go, in the order of the group.
        damage: what was measured at the output when this group alone was cut so, if it was.
    """

    group: str
    kind: str
    units: Length
    kept: Length
    gone: tuple[Count, ...] = Field(min_length=1)
    scores: tuple[Finite, ...] = ()
    damage: Finite | None = None
    tensors: tuple[TensorCut, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if any(one >= two for one, two in pairwise(self.gone)):
            raise ValueError("the places that go have to rise")
        if self.gone[-1] >= self.units:
            raise ValueError(f"place {self.gone[-1]} of {self.units} units cannot go")
        if self.kept != self.units - len(self.gone):
            raise ValueError(f"{len(self.gone)} of {self.units} units go, so {self.kept} cannot stay")
        if len(self.scores) not in (0, self.units):
            raise ValueError(f"{len(self.scores)} scores of {self.units} units")
        return self


class BlockCut(_Part):
    """A residual block that goes whole."""

    block: str
    nodes: tuple[str, ...]
    damage: Finite | None = None


class PrunePlan(_Part):
    """All that a cut does.

    Attributes:
        model_sha256: digest of the model that it was made for (after simplification).
        shapes: of the inputs that costs were counted at.
        data: digest of the samples that the weights were solved with; None where none were.
    """

    version: int = Field(VERSION, ge=VERSION, le=VERSION, strict=True)
    model_sha256: str
    shapes: dict[str, tuple[Length, ...]]
    importance: str
    allocation: str
    multiple: Length
    reconstruct: StrictBool
    samples: Count = 0
    data: str | None = None
    speedup: Finite | None = Field(None, description="measured in ONNX Runtime, where it was asked for")
    before: Cost
    after: Cost
    groups: tuple[GroupCut, ...]
    blocks: tuple[BlockCut, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for what, names in (
            ("group", [group.group for group in self.groups]),
            ("block", [block.block for block in self.blocks]),
        ):
            twice = _repeated(names)
            if twice is not None:
                raise ValueError(f"the {what} '{twice}' is there twice")
        if (self.data is None) != (self.samples == 0) or (self.data is not None and not self.reconstruct):
            raise ValueError("samples are named where weights were solved with them, and nowhere else")
        return self


def _repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def contradiction(what: str, where: str) -> DataError:
    """That a plan says of its model what does not hold."""
    return DataError(what, where=f"plan: {where}", hint="make a new plan with a budget")


def check_cost(which: str, said: Cost, found: Cost) -> None:
    """Refuse costs that are not those of the graph.

    Raises:
        DataError: they are not.
    """
    for name in Cost.model_fields:
        one, other = getattr(said, name), getattr(found, name)
        if one != other:
            raise contradiction(f"the plan says {one}, and the graph has {other}", f"{which}.{name}")


def check_shapes(plan: PrunePlan, inputs: Sequence[TensorSpec]) -> None:
    """Refuse shapes that the inputs of the model cannot have.

    Raises:
        DataError: they cannot.
    """
    names = [spec.name for spec in inputs]
    if plan.shapes.keys() != set(names):
        raise contradiction(
            f"there are shapes of {', '.join(plan.shapes) or 'nothing'}, and the inputs are {', '.join(names)}",
            "shapes",
        )
    for spec in inputs:
        shape, where = plan.shapes[spec.name], f"shapes.{spec.name}"
        fits = len(shape) == len(spec.shape) and all(
            length == dim for length, dim in zip(shape, spec.shape, strict=True) if isinstance(dim, int)
        )
        if not fits:
            raise contradiction(f"the input is {list(spec.shape)} and cannot be {list(shape)}", where)
        if prod(shape) > LARGEST_INPUT:
            raise contradiction(f"an input of {list(shape)} has more than {LARGEST_INPUT} elements", where)
