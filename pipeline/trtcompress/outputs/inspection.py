"""What `inspect` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..config import Settings

if TYPE_CHECKING:
    pass
from .models import TensorInfo


class OperatorCost(Settings):
    """All nodes of one operator kind together."""

    op: str
    count: int
    macs: int
    parameters: int
    bytes: int


class NodeCostInfo(Settings):
    """One node."""

    node: str
    op: str
    macs: int
    parameters: int


class PrunableGroup(Settings):
    """Units that can be cut one for another."""

    group: str
    kind: str
    units: int = Field(description="how many there are")
    parts: int = Field(description="equal parts that they fall into; a cut takes whole parts")
    macs: float = Field(description="multiply-accumulates that go when one unit goes")
    parameters: float = Field(description="parameters that go when one unit goes")
    weights: tuple[str, ...] = Field(description="what gets smaller together: name[axis]")


class LeftWhole(Settings):
    """What cannot be cut."""

    why: str
    weights: tuple[str, ...] = Field(description="name[axis]")


class Prunable(Settings):
    """What can be cut from a model, of its simplified form."""

    groups: tuple[PrunableGroup, ...]
    left: tuple[LeftWhole, ...]


class Inspection(Settings):
    """What `inspect` found."""

    path: str
    sha256: str
    opset: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    shapes: dict[str, tuple[int, ...]] = Field(description="input shapes that the costs are for")
    macs: int
    parameters: int
    bytes: int
    operators: tuple[OperatorCost, ...]
    heaviest: tuple[NodeCostInfo, ...]
    quantizable_nodes: int = Field(description="nodes that INT8 kernels exist for")
    quantizable_macs: float = Field(description="their share of the MACs, 0 to 1")
    quantized_already: tuple[str, ...] = Field(description="nodes that are quantized already")
    prunable: Prunable | None = Field(description="with --groups; else null")
