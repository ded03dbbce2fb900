"""What the ONNX parser of each release of TensorRT takes.

Sources: `docs/operators.md` and `docs/Changelog.md` of onnx-tensorrt at each release.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .tensorrt_features import Number

PARSERS: tuple[tuple[Number, int], ...] = (
    ((8, 0), 13),
    ((8, 5), 17),
    ((9, 0), 19),
    ((10, 0), 20),
    ((10, 15), 24),
    ((11, 5), 25),
)
"""The newest opset that the ONNX parser of classic TensorRT takes, from that release on; between two the older counts.

Stated for 8.0, 8.2, 8.5, 8.6, 9.2, 10.0, 10.15, 11.2 and 11.5. Of 8.4 it is not, so that it counts as 8.2.
"""

OPERATORS: Mapping[str, Number] = MappingProxyType(
    {
        **dict.fromkeys(
            ("Einsum", "IsNaN", "GatherND", "Scatter", "ScatterElements", "ScatterND", "Sign", "Round"), (8, 2)
        ),
        **dict.fromkeys(("Shrink", "Xor"), (8, 4)),
        **dict.fromkeys(("RandomNormal", "RandomUniform", "MeanVarianceNormalization", "RoiAlign", "Mod"), (8, 5)),
        **dict.fromkeys(("Trilu", "GridSample", "NonZero"), (8, 5)),
        **dict.fromkeys(("GroupNormalization", "LayerNormalization", "IsInf"), (8, 6)),
        "Hardmax": (9, 2),
        "DeformConv": (10, 1),
        "Attention": (10, 14),
    }
)
"""Operators that a parser learnt later than the opset that it takes has them."""
