"""The precision plan written into the graph."""

from __future__ import annotations

from pathlib import Path

from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

from ..stage import StageSettings, stage


class QuantizeStageSettings(StageSettings):
    """Settings of the quantize stage: none, the plan says it all."""


@stage(output="quantized", version=1, leaves="models/{subject}", scope="encoding", libs=("onnx", "onnx-ir", "numpy"))
def quantize(
    equalized: Model,
    ranges: Ranges,
    plan: PrecisionPlan,
    encoding: Encoding,
    settings: QuantizeStageSettings,
    out: Path,
) -> Model:
    """Write INT8 as Q/DQ pairs and FP16 as casts.

    Raises:
        PlacementError: a tensor to quantize has no range.
    """
    from trtcompress_calibration.placement import quantize as write

    return write(equalized, ranges, plan, encoding, out / "model.onnx")
