"""What `sensitivity` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..config import Settings

if TYPE_CHECKING:
    from trtcompress_calibration.sensitivity import Sensitivity


class DamageInfo(Settings):
    """What one node or tensor costs when it alone is quantized."""

    name: str
    kind: Literal["node", "activation", "weight"]
    op: str = Field(description="operator of the node, or of the first that reads the tensor")
    nodes: tuple[str, ...] = Field(description="the node, or those that read the tensor quantized")
    damage: float = Field(description="squared error of the outputs over their variance, the mean of all outputs")


class SensitivityResult(Settings):
    """What `sensitivity` measured; the greatest damage first."""

    encoding: str
    samples: int
    outputs: tuple[str, ...] = Field(description="tensors that were compared")
    nodes: tuple[DamageInfo, ...]
    tensors: tuple[DamageInfo, ...]


def sensitivity_result(found: Sensitivity) -> SensitivityResult:
    """Damages as they are printed."""
    nodes, tensors = (
        tuple(DamageInfo(name=d.name, kind=d.kind, op=d.op, nodes=d.nodes, damage=d.damage) for d in damages)
        for damages in (found.nodes, found.tensors)
    )
    return SensitivityResult(
        encoding=found.encoding, samples=found.samples, outputs=found.outputs, nodes=nodes, tensors=tensors
    )
