"""Opening a plan where its GPU may be."""

from __future__ import annotations

from trtcompress_graph.errors import CompileError, EngineLoadError, UsageError
from trtcompress_graph.target import Engine

from ..backend import Runner
from ..gpu.device import missing_pycuda
from ..kit.device.streaming import AUTOMATIC
from ..targets import resolve_target
from ..tensorrt_options import BUDGET, OTHER_CARDS, STRIPPED, WEIGHTS
from ..tensorrt_release import Flavour
from .trt_load import gpu_count, missing_classic, missing_rtx, other_card
from .trt_reproduce import REFIT


def open_plan(engine: Engine, flavour: Flavour) -> Runner:
    """A runner for the plan, on the first GPU.

    Raises:
        EngineLoadError: it is for another card than that of this machine.
        CompileError: it cannot run on this machine, and why.
    """
    if lacking := _missing(engine, flavour):
        raise CompileError(
            f"an engine for {engine.target} cannot run here: {lacking}",
            where=str(engine.path),
            hint="its graph can: trtcompress validate " + str(engine.graph.path),
        )
    if card := _other_card(engine):
        raise EngineLoadError(
            f"the engine does not run here: {card}",
            where=str(engine.path),
            hint="reproduce.sh beside it builds it there",
        )
    from ..gpu.runner import GpuRunner

    return GpuRunner(engine.path, flavour, engine.details.get(BUDGET, AUTOMATIC))


def _missing(engine: Engine, flavour: Flavour) -> str:
    if not engine.built:
        return "it was not built"
    if not _has_weights(engine):
        return f"its plan holds no weights ({REFIT} beside it gives them back)"
    if not gpu_count():
        return "there is no NVIDIA GPU"
    return (missing_rtx() if flavour == "rtx" else missing_classic()) or missing_pycuda()


def _has_weights(engine: Engine) -> bool:
    """Builds that do not tell left `refit.py` beside plans without weights alone."""
    told = engine.details.get(WEIGHTS)
    return told != STRIPPED if told else not (engine.path.parent / REFIT).exists()


def _other_card(engine: Engine) -> str:
    """Why the GPU here is not the engine's; empty where it is, or where that is for TensorRT to say."""
    if OTHER_CARDS in engine.details:
        return ""
    try:
        return other_card(resolve_target(engine.target))
    except UsageError:  # a device of a config
        return ""
