"""The precision plan written into the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

from ..config import BuildConfig, WeightMethod
from ..datasets import open_data
from ..stage import DataRef, StageSettings, on_this_machine, stage
from ..trials import TRIALS, write_trials


class QuantizeStageSettings(StageSettings):
    """Settings of the quantize stage; what runs in INT8 the plan says."""

    weights: WeightMethod

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the section `quantize`."""
        return cls(weights=config.quantize.weights)

    def unread(self) -> frozenset[str]:
        """Samples are read only to measure how far weights should reach."""
        return frozenset() if self.weights == "auto" else frozenset({"calibration"})


@stage(
    output="quantized",
    version=4,
    leaves="models/{subject}",
    scope="encoding",
    libs=("onnx", "onnx-ir", "onnxruntime", "numpy", "pillow"),
    device=on_this_machine,
)
def quantize(
    equalized: Model,
    ranges: Ranges,
    plan: PrecisionPlan,
    encoding: Encoding,
    settings: QuantizeStageSettings,
    out: Path,
    calibration: DataRef | None = None,
) -> Model:
    """Write INT8 as Q/DQ pairs and FP16 as casts.

    Raises:
        DataError: a tensor to quantize has no range.
        DataError: samples that do not fit the model, where the reach of weights is measured on them.
    """
    from trtcompress_calibration.placement import quantize as write
    from trtcompress_calibration.rounding.round import SAMPLES

    from ..trying import best_weights

    path = out / "model.onnx"
    if settings.weights != "auto":
        return write(equalized, ranges, plan, encoding, path, weights=settings.weights)
    assert calibration is not None
    samples = open_data(calibration, equalized, samples=min(SAMPLES, calibration.samples or SAMPLES))
    made = best_weights(equalized, ranges, plan, encoding, samples, path)
    write_trials(made, out / TRIALS)
    return Model(made.path, made.digest, made.inputs, made.outputs)
