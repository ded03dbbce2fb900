"""Operators by what they do with numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weighted:
    """Positions of weight and bias of an operator that multiplies by weights."""

    weight: int = 1
    bias: int | None = 2


WEIGHTED = {
    "Conv": Weighted(),
    "ConvTranspose": Weighted(),
    "Gemm": Weighted(),
    "MatMul": Weighted(bias=None),
}

MOVES = frozenset(
    (
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Split",
        "Gather",
        "GatherElements",
        "GatherND",
        "Expand",
        "Tile",
        "Concat",
        "Identity",
        "DepthToSpace",
        "SpaceToDepth",
        "Pad",
        "Compress",
        "ReverseSequence",
        "Trilu",
    )
)
"""Operators that put numbers elsewhere and compute none."""

SHRINKS = frozenset({"GlobalAveragePool", "ReduceMean", "MaxPool", "ReduceMax", "ReduceMin"})
"""Operators that read far more than they write: INT8 pays for what they read, whoever reads the result."""

NO_FLOATS = "it works on no floats"
