"""Opening a plan where its GPU may be."""

from __future__ import annotations

from trtcompress_graph.errors import CompileError
from trtcompress_graph.target import Engine

from ..backend import Runner
from ..gpu.device import missing_pycuda
from ..kit.device.streaming import AUTOMATIC
from ..tensorrt_options import BUDGET
from ..tensorrt_release import Flavour
from .trt_load import gpu_count, missing_classic, missing_rtx
from .trt_reproduce import REFIT


def open_plan(engine: Engine, flavour: Flavour) -> Runner:
    """A runner for the plan, on the first GPU.

    Raises:
        CompileError: it cannot run on this machine, and why.
    """
    if lacking := _missing(engine, flavour):
        raise CompileError(
            f"an engine for {engine.target} cannot run here: {lacking}",
            where=str(engine.path),
            hint="its graph can: trtcompress validate " + str(engine.graph.path),
        )
    from ..gpu.runner import GpuRunner

    return GpuRunner(engine.path, flavour, engine.details.get(BUDGET, AUTOMATIC))


def _missing(engine: Engine, flavour: Flavour) -> str:
    if not engine.built:
        return "it was not built"
    if (engine.path.parent / REFIT).exists():
        return f"its plan holds no weights ({REFIT} beside it gives them back)"
    if not gpu_count():
        return "there is no NVIDIA GPU"
    return (missing_rtx() if flavour == "rtx" else missing_classic()) or missing_pycuda()
