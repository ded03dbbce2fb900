"""The integers of a quantized graph, chosen from what its layers read."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.model import Model

from ..config import BuildConfig, Rounding
from ..datasets import open_data
from ..stage import DataRef, StageSettings, on_this_machine, stage
from ..trials import TRIALS, TriedModel, write_trials


class RoundSettings(StageSettings):
    """Settings of the round stage."""

    rounding: Rounding
    correct_bias: bool | None

    @classmethod
    def of(cls, config: BuildConfig) -> Self | None:
        """From the section `quantize`; nothing to do where weights go to the nearest integer and biases stay."""
        section = config.quantize
        bias = None if section.correct_bias == "auto" else section.correct_bias
        return (
            None
            if section.rounding == "nearest" and bias is False
            else cls(rounding=section.rounding, correct_bias=bias)
        )


@stage(
    output="rounded",
    takes="quantized",
    version=2,
    leaves="models/rounded/{subject}",
    scope="encoding",
    libs=("onnx", "onnx-ir", "onnxruntime", "numpy", "pillow"),
    device=on_this_machine,
)
def round_(
    quantized: Model, equalized: Model, encoding: Encoding, calibration: DataRef, settings: RoundSettings, out: Path
) -> TriedModel:
    """Choose the integers of weights and biases anew; what was tried lies beside the graph.

    Raises:
        DataError: samples that do not fit the model, or there are none.
    """
    from trtcompress_calibration.rounding.round import SAMPLES

    from ..trying import rounded_model

    made = rounded_model(
        equalized,
        quantized,
        open_data(calibration, equalized, samples=min(SAMPLES, calibration.samples or SAMPLES)),
        out / "model.onnx",
        rounding=settings.rounding,
        correct_bias=settings.correct_bias,
        encoding=encoding,
    )
    write_trials(made, out / TRIALS)
    return made
