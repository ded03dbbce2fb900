"""What each release of TensorRT has of what can be asked of its builder.

Sources: NVIDIA's release notes and migration guides, and for 8.6, 10.x, 11 and RTX the signatures of their bindings
(tests/engines/trt_signatures).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Feature = Literal[
    "workspace_mb",
    "optimization_level",
    "timing_cache",
    "hardware_compatible",
    "version_compatible",
    "refit",
    "strip",
    "weight_streaming",
    "sparse",
    "dla",
    "implicit",
]
Number = tuple[int, int]
"""Major and minor."""


@dataclass(frozen=True, slots=True)
class Support:
    """Where a feature is there.

    Attributes:
        since: first release of classic TensorRT that has it.
        before: first release that has it no more, or None.
        rtx: empty where TensorRT for RTX has it, else what stands in its place.
        later: what became of it in releases that do not have it any more.
    """

    since: Number
    before: Number | None = None
    rtx: str = ""
    later: str = ""


FEATURES: Mapping[Feature, Support] = MappingProxyType(
    {
        "workspace_mb": Support((8, 0)),
        "optimization_level": Support((8, 6)),
        "timing_cache": Support((8, 0), rtx="no tactics are timed ahead of the card"),
        "hardware_compatible": Support((8, 6), rtx="one file for several cards is a target such as rtx-3090+rtx-4090"),
        "version_compatible": Support((8, 6), rtx="its plans load in the release that made them alone"),
        "refit": Support((8, 0)),
        "strip": Support((10, 0)),
        "weight_streaming": Support((10, 0)),
        "sparse": Support((8, 0)),
        # "Working with DLA" and release notes of 11.4.1. There INT8 for a DLA is not by a cache, so that it stays
        # refused rather than guessed.
        "dla": Support(
            (8, 0),
            (10, 8),
            rtx="RTX cards have no DLA",
            later="10.7 was the last with one until 11.4.1, which has it again on Jetson AGX Orin with JetPack 7.2.2, "
            "in strongly typed graphs alone: that is not supported here",
        ),
        "implicit": Support((8, 0), (11, 0), rtx="types stand in the graph"),
    }
)
