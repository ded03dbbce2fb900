"""Ranges of the activations, measured once for all encodings."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

from ..config import BuildConfig, Method
from ..datasets import open_data
from ..stage import DataRef, Progress, StageSettings, on_this_machine, stage

SAMPLES = 128
"""Samples that calibration reads where the config does not say."""


class CalibrateSettings(StageSettings):
    """Settings of the calibrate stage."""

    method: Method
    batch: int

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the section `quantize`."""
        return cls(method=config.quantize.method, batch=config.quantize.batch)


@stage(
    output="ranges",
    version=2,
    leaves=".",
    libs=("onnxruntime", "numpy", "numba", "pillow"),
    device=on_this_machine,
)
def calibrate(
    equalized: Model, calibration: DataRef, settings: CalibrateSettings, out: Path, progress: Progress
) -> Ranges:
    """Run the samples through the float model and reduce every tensor to a range.

    Raises:
        DataError: samples that do not fit the model, NaN or infinity.
    """
    from trtcompress_calibration.collect import calibrate as collect

    data = open_data(calibration, equalized, samples=calibration.samples or SAMPLES)
    ranges = collect(
        equalized,
        data,
        method=settings.method,
        batch_size=settings.batch,
        progress=lambda done: progress(done, data.total),
    )
    ranges.write(out / "ranges.json")
    return ranges
