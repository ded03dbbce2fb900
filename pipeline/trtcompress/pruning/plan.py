"""The plan of a cut: what was kept of each tensor, why, and what it costs before and after. Written as JSON.

Applied again to the same model (with the same samples, where weights were solved anew) it gives the same bytes.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cost(_Part):
    """What one pass costs, at the shapes of the plan."""

    macs: int
    parameters: int


class TensorCut(_Part):
    """What is kept of one axis of one weight."""

    tensor: str
    axis: int
    length: int = Field(description="before the cut")
    kept: tuple[int, ...] = Field(description="indices that stay, rising; of each row, one behind the other")


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
    units: int
    kept: int
    gone: tuple[int, ...]
    scores: tuple[float, ...] = ()
    damage: float | None = None
    tensors: tuple[TensorCut, ...] = ()


class BlockCut(_Part):
    """A residual block that goes whole."""

    block: str
    nodes: tuple[str, ...]
    damage: float | None = None


class PrunePlan(_Part):
    """All that a cut does.

    Attributes:
        model_sha256: digest of the model that it was made for (after simplification).
        shapes: of the inputs that costs were counted at.
        data: digest of the samples that the weights were solved with; None where none were.
    """

    version: int = VERSION
    model_sha256: str
    shapes: dict[str, tuple[int, ...]]
    importance: str
    allocation: str
    multiple: int
    reconstruct: bool
    samples: int = 0
    data: str | None = None
    speedup: float | None = Field(None, description="measured in ONNX Runtime, where it was asked for")
    before: Cost
    after: Cost
    groups: tuple[GroupCut, ...]
    blocks: tuple[BlockCut, ...] = ()
