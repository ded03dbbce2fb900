"""An engine of a graph for a target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

from ..config import BuildConfig
from ..stage import StageSettings, stage


class CompileSettings(StageSettings):
    """Settings of the compile stage."""

    threads: int

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the section `measure`."""
        return cls(threads=config.measure.threads)


def _for_this_machine(inputs: Mapping[str, Any]) -> bool:
    target: Target = inputs["target"]
    return target.how in ("cpu", "local")


@stage(
    output="engine",
    version=1,
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
    settings: CompileSettings,
    out: Path,
) -> Engine:
    """Build the engine; the portable graph of a CPU engine lies beside it.

    Raises:
        CompileError: the backend refuses the graph; the ONNX node is named where it is known.
        UsageError: a dynamic axis has no range.
    """
    from ..compiling import compile_model

    return compile_model(trained, target, encoding.name, axes, out, threads=settings.threads)
