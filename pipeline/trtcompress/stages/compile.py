"""An engine of a graph for a target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges
from trtcompress_graph.target import Engine, Target

from ..builder import BuilderRef
from ..config import BuildConfig
from ..stage import DataRef, StageSettings, stage


class CompileSettings(StageSettings):
    """Settings of the compile stage; what is asked of TensorRT for a target is an input of its own."""

    threads: int
    by_cache: bool = False

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the section `measure`, and whether a target takes its scales from a cache."""
        sections = [config.tensorrt, *(target.tensorrt for target in config.targets if target.tensorrt)]
        return cls(threads=config.measure.threads, by_cache=any(section.by_cache for section in sections))

    def unread(self) -> frozenset[str]:
        """The float model, its ranges and the samples are read only where scales stand in a cache."""
        return frozenset() if self.by_cache else frozenset({"equalized", "ranges", "plan", "calibration"})


def _for_this_machine(inputs: Mapping[str, Any]) -> bool:
    target: Target = inputs["target"]
    return target.how in ("cpu", "local")


@stage(
    output="engine",
    version=8,
    leaves="engines/{subject}",
    scope="engine",
    libs=("onnxruntime", "polygraphy", "tensorrt", "tensorrt-rtx-cu13-bindings", "onnxruntime-ep-nv-tensorrt-rtx-cu13"),
    device=_for_this_machine,
)
def compile_(
    trained: Model,
    target: Target,
    encoding: Encoding,
    axes: dict[str, dict[str, AxisRange]],
    builder: BuilderRef,
    settings: CompileSettings,
    out: Path,
    equalized: Model | None = None,
    ranges: Ranges | None = None,
    plan: PrecisionPlan | None = None,
    calibration: DataRef | None = None,
) -> Engine:
    """Build the engine; the portable graph of a CPU engine lies beside it.

    Where INT8 is implicit, TensorRT is given the float model and its scales.

    Raises:
        CompileError: the backend refuses the graph; the ONNX node is named where it is known.
        UsageError: a dynamic axis has no range.
    """
    from ..compiling import compile_model
    from ..implicit import implicit_scales

    with implicit_scales(builder, target, encoding, axes, equalized, ranges, plan, calibration) as implicit:
        return compile_model(
            trained, target, encoding.name, axes, out, threads=settings.threads, builder=builder, implicit=implicit
        )
