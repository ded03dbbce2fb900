"""Ranges of the activations, measured once for all encodings."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Self

from trtcompress_graph.model import Model

from ..config import BuildConfig, Method
from ..datasets import open_data
from ..stage import DataRef, Progress, StageSettings, on_this_machine, stage
from ..trials import TRIALS, TriedRanges, write_trials

_log = logging.getLogger(__name__)

SAMPLES = 128
"""Samples that calibration reads where the config does not say."""


class CalibrateSettings(StageSettings):
    """Settings of the calibrate stage."""

    method: Method
    batch: int
    encoding: str = ""
    skip: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the section `quantize`; `auto` measures in the encoding of the first target that takes INT8."""
        from ..asked import first_int8

        quantize = config.quantize
        if quantize.method != "auto":
            return cls(method=quantize.method, batch=quantize.batch)
        encoding = first_int8(config)
        if encoding is None:
            return cls(method="entropy", batch=quantize.batch)
        return cls(method="auto", batch=quantize.batch, encoding=encoding.name, skip=quantize.skip)


@stage(
    output="ranges",
    version=5,
    leaves=".",
    libs=("onnxruntime", "numpy", "numba", "pillow"),
    device=on_this_machine,
)
def calibrate(
    equalized: Model, calibration: DataRef, settings: CalibrateSettings, out: Path, progress: Progress
) -> TriedRanges:
    """Run the samples through the float model and reduce every tensor to a range; what was tried lies beside them.

    Raises:
        DataError: samples that do not fit the model, NaN or infinity.
    """
    from trtcompress_calibration.collect import calibrate as collect

    data = open_data(calibration, equalized, samples=calibration.samples or SAMPLES)
    if settings.method == "auto":
        from trtcompress_engines.encodings import encodings

        from ..trying import best_ranges

        ranges, trials = best_ranges(
            equalized,
            data,
            encoding=encodings()[settings.encoding],
            skip=settings.skip,
            batch=settings.batch,
            progress=lambda done: progress(done, data.total),
        )
        told = ", ".join(f"{trial.what} {trial.error:.3g}" for trial in trials)
        _log.info("%s is taken; squared error of the outputs over their variance: %s", ranges.method, told)
    else:
        trials = ()
        ranges = collect(
            equalized,
            data,
            method=settings.method,
            batch_size=settings.batch,
            progress=lambda done: progress(done, data.total),
        )
    ranges.write(out / "ranges.json")
    made = TriedRanges(ranges.version, ranges.model_sha256, ranges.method, ranges.samples, ranges.tensors, trials)
    if settings.method == "auto":
        write_trials(made, out / TRIALS)
    return made
