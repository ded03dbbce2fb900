"""What `prune` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..config import Settings

if TYPE_CHECKING:
    pass
from .models import TensorInfo


class CutCost(Settings):
    """What one pass costs, and the size of the ONNX file."""

    macs: int
    parameters: int
    bytes: int


class CutGroup(Settings):
    """What was cut of a group."""

    group: str
    kind: str
    units: int
    kept: int
    damage: float | None = Field(description="what the output lost when this group alone was cut so, if measured")
    weights: tuple[str, ...] = Field(description="name[axis]")


class CutBlock(Settings):
    """A residual block that went whole."""

    block: str
    damage: float | None
    nodes: tuple[str, ...]


class PruneResult(Settings):
    """The model that `prune` wrote, and what was cut."""

    path: str
    sha256: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    plan: str | None = Field(description="the plan that was written or applied")
    shapes: dict[str, tuple[int, ...]] = Field(description="input shapes that the costs are for")
    before: CutCost = Field(description="of the simplified model")
    after: CutCost
    speedup: float | None = Field(description="measured in ONNX Runtime; null where it was not asked for")
    importance: str
    allocation: str
    multiple: int
    reconstruct: bool
    samples: int = Field(description="that the weights were solved anew with")
    groups: tuple[CutGroup, ...]
    blocks: tuple[CutBlock, ...]
    notes: tuple[str, ...]
