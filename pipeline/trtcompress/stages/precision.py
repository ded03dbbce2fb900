"""What each node runs in, under an encoding."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Self

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

from ..config import BuildConfig
from ..datasets import open_data, open_evaluation
from ..stage import DataRef, MetricRef, Progress, StageSettings, on_this_machine, stage
from .calibrate import SAMPLES

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset


class PrecisionSettings(StageSettings):
    """Settings of the precision stage."""

    skip: tuple[str, ...]
    max_drop: float | None
    max_metric_drop: float | None
    min_cosine: float | None
    min_snr_db: float | None
    pruned: bool

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the section `quantize`, the gates on accuracy, and whether there is a section `prune`."""
        return cls(
            skip=config.quantize.skip,
            max_drop=config.quantize.max_drop,
            max_metric_drop=config.gates.max_metric_drop,
            min_cosine=config.gates.min_cosine,
            min_snr_db=config.gates.min_snr_db,
            pruned=config.prune is not None,
        )


@stage(
    output="plan",
    version=5,
    leaves="plans/{subject}",
    scope="encoding",
    libs=("onnx", "onnx-ir", "onnxruntime", "polygraphy", "numpy", "pillow"),
    device=on_this_machine,
)
def precision(
    exported: Model,
    student: Model,
    equalized: Model,
    ranges: Ranges,
    encoding: Encoding,
    evaluation: DataRef,
    calibration: DataRef,
    metrics: tuple[MetricRef, ...],
    axes: dict[str, dict[str, AxisRange]],
    settings: PrecisionSettings,
    out: Path,
    progress: Progress,
) -> PrecisionPlan:
    """Decide node by node between INT8, FP16 and FP32, with the reason.

    Where the INT8 graph is measured to miss the accuracy that is asked for, the nodes that cost most stay in float.

    Raises:
        ConfigError: a pattern of `skip` matches no node.
        DataError: a tensor to quantize has no range.
        DataError: samples that do not fit the model, no labels where a metric needs them, or samples that calibrate
            nothing or are grossly unlike those of the evaluation.
    """
    from trtcompress_calibration.doubts import refuse_constant, refuse_unlike
    from trtcompress_calibration.precision import plan_precision
    from trtcompress_engines.backends.trt_process import refuse_branches

    from ..profiles import named_axes
    from ..refining import Judge, Limits, refine

    if encoding.float_type == "float16":  # for TensorRT: better said now than when it is compiled
        refuse_branches(equalized)

    def samples() -> Dataset:
        return open_data(calibration, equalized, samples=calibration.samples or SAMPLES)

    if encoding.int8:
        refuse_constant(ranges, equalized.inputs, calibration.source)
        if (evaluation.source, evaluation.digest) != (calibration.source, calibration.digest):
            refuse_unlike(samples(), open_data(evaluation, exported), exported.inputs)
    plan = plan_precision(equalized, ranges, encoding, skip=settings.skip)
    judge = Judge(
        reference=exported,
        pruned=student if settings.pruned else None,
        data=lambda: open_evaluation(evaluation, exported),
        metrics=metrics,
        axes=named_axes(exported, axes),
        limits=Limits(settings.max_drop, settings.max_metric_drop, settings.min_cosine, settings.min_snr_db),
        progress=progress,
    )
    plan = refine(*(equalized, plan, judge, ranges, encoding), samples, out, settings.skip)
    (out / "precision.json").write_text(json.dumps(asdict(plan), indent=1) + "\n", encoding="utf-8")
    return plan
