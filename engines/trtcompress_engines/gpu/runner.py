"""Runs a plan of TensorRT, or of TensorRT for RTX, on a GPU of this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from trtcompress_graph.errors import CompileError, EngineLoadError
from trtcompress_graph.measured import GpuTimes

from ..backends.trt_load import load
from ..kit.device.streaming import AUTOMATIC, BudgetError, set_budget
from ..tensorrt_release import BINDINGS, TITLES, Flavour, Release
from .device import GpuDevice
from .placed import Context, Placed
from .tensors import Tensors
from .times import time_placed

if TYPE_CHECKING:
    from ..backend import Array


class GpuRunner:
    """An engine on the first GPU.

    Inside its `with` block it answers, and times. `bind` places inputs and outputs in pinned memory; what it returns
    runs one batch from there and back again.

    Args:
        plan: file of the engine.
        flavour: which TensorRT built it.
        budget: of GPU memory for weights that are streamed: bytes, a share of them (`30%`), or `automatic`.
    """

    def __init__(self, plan: Path, flavour: Flavour, budget: str = AUTOMATIC) -> None:
        self._plan, self._flavour, self._budget = plan, flavour, budget

    def __enter__(self) -> Self:
        """Load the engine.

        Raises:
            EngineLoadError: it was built by another release or for another GPU.
            CompileError: it gives what numpy cannot hold, or does not take the budget of its streamed weights.
        """
        trt = _module(self._flavour, self._plan)
        with ExitStack() as stack:
            self._device = stack.enter_context(_gpu(self._plan))
            self._runtime, self._engine = _load_engine(trt, self._plan, TITLES[self._flavour])
            self._set_budget()
            self._tensors = Tensors(trt, self._engine, self._plan)
            shares = Release(self._flavour, trt.__version__).shares_profiles
            self._one = None if shares else Context(self._engine, self._plan)
            self._usual: Placed | None = self._new()
            if not self._tensors.on_host:
                self._usual.set_shapes(self._tensors.usual())
                for name in self._tensors.outputs:
                    self._usual.output_shape(name)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._usual = self._one = self._engine = self._runtime = None  # while the context still lives
        self._stack.close()

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for one batch of inputs by name.

        Raises:
            EngineShapeError: a shape that the engine was not built for.
            CompileError: CUDA or TensorRT fails.
        """
        assert self._usual is not None
        self._usual.place(feed)
        self._usual.run()
        return self._usual.outputs()

    def bind(self, feed: Mapping[str, Array]) -> Callable[[], object]:
        """A call that copies the batch to the device, runs the engine, copies the outputs back and waits.

        Raises:
            CompileError: a shape that the engine was not built for, or no memory.
        """
        return self._placed(feed).run

    def gpu_times(self, feed: Mapping[str, Array], batch: int, seconds: float) -> GpuTimes:
        """Where the time of a batch goes.

        Raises:
            CompileError: a shape that the engine was not built for, or CUDA or TensorRT fails.
        """
        return time_placed(self._placed(feed), batch, seconds, self._device.bus_id)

    def _set_budget(self) -> None:
        """Before there is a context: TensorRT streams no weights where none is set."""
        try:
            set_budget(self._engine, self._budget)
        except BudgetError as error:
            hint = "give another tensorrt.weight_streaming_budget, or leave it out"
            raise CompileError(str(error), where=str(self._plan), hint=hint) from error

    def _placed(self, feed: Mapping[str, Array]) -> Placed:
        """A context of its own: another batch size does not change its shapes, nor a graph that was captured of it.

        Where the engine gives one alone, the batches take turns.
        """
        placed = self._new()
        placed.place(feed)
        return placed

    def _new(self) -> Placed:
        context = self._one or Context(self._engine, self._plan)
        return Placed(self._device, context, self._tensors, self._plan)


def _module(flavour: Flavour, plan: Path) -> Any:
    """TensorRT. The libraries of both flavours hold symbols of the same names, so a process loads one."""
    other: Flavour = "rtx" if flavour == "classic" else "classic"
    if any(name in sys.modules for name in BINDINGS[other]):
        why = f"this process has loaded {TITLES[other]} and cannot load {TITLES[flavour]} too"
        raise CompileError(why, where=str(plan), hint="build the targets one by one")
    return load(flavour)


def _gpu(plan: Path) -> GpuDevice:
    try:
        import pycuda.driver  # noqa: F401
    except ImportError as error:
        raise CompileError(f"pycuda does not load: {error}", where=str(plan)) from error
    return GpuDevice()


def _load_engine(trt: Any, plan: Path, title: str) -> tuple[Any, Any]:
    """Runtime, which must outlive the engine, and engine."""
    said: list[str] = []

    def keep(self: Any, severity: Any, message: str) -> None:
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            said.append(message.strip())

    runtime = trt.Runtime(type("Logger", (trt.ILogger,), {"log": keep})())
    # A version-compatible plan carries a runtime of its own
    runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        why = said[-1] if said else "it says nothing"
        raise EngineLoadError(
            f"{title} {trt.__version__} cannot load the engine here: {why}",
            where=str(plan),
            hint="build it again with this release and on this GPU; reproduce.sh beside it does",
        )
    return runtime, engine
