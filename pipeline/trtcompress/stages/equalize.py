"""Channels made equally wide before calibration, without changing what the model computes."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from trtcompress_graph.model import Model

from ..config import BuildConfig, Equalization, Method
from ..datasets import open_data
from ..stage import DataRef, StageSettings, on_this_machine, stage
from ..trials import TRIALS, TriedModel, write_trials
from .calibrate import SAMPLES


class EqualizeSettings(StageSettings):
    """Settings of the equalize stage.

    Attributes:
        encoding: of the first target that takes INT8: what `auto` measures.
    """

    how: Equalization
    method: Method
    skip: tuple[str, ...]
    encoding: str

    @classmethod
    def of(cls, config: BuildConfig) -> Self | None:
        """From the section `quantize`; nothing to do where it is off, or no target takes INT8."""
        from ..asked import first_int8

        first = first_int8(config)
        if config.quantize.equalize == "off" or first is None:
            return None
        return cls(
            how=config.quantize.equalize,
            method=config.quantize.method,
            skip=config.quantize.skip,
            encoding=first.name,
        )


@stage(
    output="equalized",
    takes="sparse",
    version=2,
    leaves="models/equalized",
    libs=("onnx", "onnx-ir", "onnxruntime", "numpy", "numba", "pillow"),
    device=on_this_machine,
)
def equalize(sparse: Model, calibration: DataRef, settings: EqualizeSettings, out: Path) -> TriedModel:
    """Move scales between layers; what was tried lies beside the graph.

    Raises:
        DataError: samples that do not fit the model, NaN or infinity.
        ModelError: the model is quantized already.
    """
    from trtcompress_engines.encodings import encodings

    from ..trying import equalized_model

    made = equalized_model(
        sparse,
        open_data(calibration, sparse, samples=calibration.samples or SAMPLES),
        out / "model.onnx",
        how=settings.how,
        method=settings.method,
        skip=settings.skip,
        encoding=encodings()[settings.encoding],
    )
    write_trials(made, out / TRIALS)
    return made
