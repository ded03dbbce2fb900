"""What a backend is: it makes an engine of a graph for a target, and runs it where it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

from .tensorrt_options import TensorRTOptions

if TYPE_CHECKING:  # a rebuild that runs nothing loads no numpy
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

Shape = tuple[int, ...]
Profile = tuple[Shape, Shape, Shape]
"""Least, usual and greatest shape of an input."""


@dataclass(frozen=True, slots=True)
class ImplicitScales:
    """INT8 that does not stand in the graph, as TensorRT 8 to 10 takes it and a DLA needs it.

    Attributes:
        graph: the float model.
        cache: text of `calibration.cache`: the scales of its tensors. Empty: TensorRT calibrates by itself.
        batches: folder of `.npz` files that it calibrates on; None where the cache holds the scales.
    """

    graph: Model
    cache: str = ""
    batches: Path | None = None


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """How to compile.

    Attributes:
        profiles: least, usual and greatest shape of each input that has a dynamic axis.
        threads: of the CPU engine; 0 is all cores that this process may use.
        more_profiles: further ones, each of all dynamic inputs, for which TensorRT is to choose kernels of their own.
        tensorrt: what else is asked of TensorRT's builder.
        implicit: in place of the graph's Q/DQ pairs; None builds the graph as it is.
        tf32: let classic TensorRT multiply float32 as TF32, which it does by itself and engines of a build do not.
    """

    profiles: Mapping[str, Profile] = field(default_factory=dict)
    threads: int = 0
    more_profiles: tuple[Mapping[str, Profile], ...] = ()
    tensorrt: TensorRTOptions = field(default_factory=TensorRTOptions)
    implicit: ImplicitScales | None = None
    tf32: bool = False


class Runner(Protocol):
    """An engine that is ready to run inside a `with` block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for one batch of inputs by name."""
        ...


@runtime_checkable
class BoundRunner(Protocol):
    """A runner that can place inputs and outputs beforehand, so that only the engine is timed."""

    def bind(self, feed: Mapping[str, Array]) -> Callable[[], object]:
        """A call that runs the engine once on `feed` and waits until it is done."""
        ...


class Backend(Protocol):
    """One way to make and run engines."""

    @property
    def name(self) -> str:
        """Of the entry in the registry."""
        ...

    def missing(self) -> str:
        """Empty where engines can be made here, else what is missing and what to type. Loads no library."""
        ...

    def compile(self, graph: Model, target: Target, encoding_name: str, options: CompileOptions, out: Path) -> Engine:
        """Make an engine in the folder `out`; nothing half-done stands under a final name.

        Raises:
            CompileError: the backend is missing or refuses the graph; the ONNX node is named where it is known.
        """
        ...

    def open(self, engine: Engine, threads: int = 0) -> Runner:
        """A runner for the engine.

        Raises:
            CompileError: the engine cannot run on this machine.
        """
        ...


def backend_for(target: Target) -> Backend:
    """The backend that makes engines for the target."""
    from .backends import BY_HOW  # here, so that the backends can import this module

    return BY_HOW[target.how]


def not_here(target: Target) -> str:
    """Why engines of a target are not built on this machine; empty where they are."""
    from .backends.trt_load import unfit_card

    if target.how == "kit":
        return "the device itself builds it"
    return backend_for(target).missing() or (unfit_card(target) if target.how == "local" else "")
