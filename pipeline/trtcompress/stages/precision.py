"""What each node runs in, under an encoding."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Self

from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

from ..config import BuildConfig
from ..stage import StageSettings, stage


class PrecisionSettings(StageSettings):
    """Settings of the precision stage."""

    skip: tuple[str, ...]

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the section `quantize`."""
        return cls(skip=config.quantize.skip)


@stage(output="plan", version=2, leaves="plans/{subject}", scope="encoding", libs=("onnx", "onnx-ir"))
def precision(
    equalized: Model, ranges: Ranges, encoding: Encoding, settings: PrecisionSettings, out: Path
) -> PrecisionPlan:
    """Decide node by node between INT8, FP16 and FP32, with the reason.

    Raises:
        ConfigError: a pattern of `skip` matches no node.
        PlacementError: a tensor to quantize has no range.
    """
    from trtcompress_calibration.precision import plan_precision

    plan = plan_precision(equalized, ranges, encoding, skip=settings.skip)
    (out / "precision.json").write_text(json.dumps(asdict(plan), indent=1) + "\n", encoding="utf-8")
    return plan
