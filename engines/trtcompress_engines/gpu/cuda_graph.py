"""Capture of a stream as a CUDA graph, over ctypes on libcuda: pycuda has streams and events, but no graphs.

Declarations after cuda.h of CUDA 12; capture by mode is there since 10.1 (`cuStreamBeginCapture_v2`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from typing import Any

from .present import LIBRARIES

THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads call meanwhile does not end the capture."""

NEEDED: dict[str, tuple[Any, ...]] = {
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
}
"""Types of the parameters; each function returns a CUresult."""

INSTANTIATE: dict[str, tuple[Any, ...]] = {
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_uint64),
    "cuGraphInstantiate_v2": (POINTER(c_void_p), c_void_p, POINTER(c_void_p), c_char_p, c_size_t),
}
"""Of CUDA 11.4 and later, and of 11.0 and later."""


class NotCapturedError(Exception):
    """There is no CUDA graph; the message says why."""


class Driver:
    """The functions of libcuda that a graph needs.

    Args:
        library: libcuda.

    Raises:
        NotCapturedError: the driver is too old.
    """

    def __init__(self, library: Any) -> None:
        self._functions = {name: _declared(library, name, types) for name, types in NEEDED.items()}
        found = [name for name in INSTANTIATE if hasattr(library, name)]
        if not found:
            raise NotCapturedError(f"the driver has no {' and no '.join(INSTANTIATE)}")
        self._instantiate = found[0]
        self._functions[found[0]] = _declared(library, found[0], INSTANTIATE[found[0]])

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            NotCapturedError: it fails, with the words of the driver.
        """
        status = self._functions[name](*arguments)
        if status:
            words = c_char_p()
            self._functions["cuGetErrorString"](status, ctypes.byref(words))
            raise NotCapturedError(f"{name} failed: {(words.value or b'unknown').decode()} (error {status})")

    def instantiate(self, graph: c_void_p) -> c_void_p:
        """An executable graph of a captured one.

        Raises:
            NotCapturedError: it cannot be made.
        """
        made = c_void_p()
        rest: tuple[Any, ...] = (0,) if self._instantiate.endswith("WithFlags") else (None, None, 0)
        self.call(self._instantiate, ctypes.byref(made), graph, *rest)
        return made


class CudaGraph:
    """What was captured; freed when nothing holds it any more, while the context still lives."""

    def __init__(self, driver: Driver, stream: int, executable: c_void_p) -> None:
        self._driver, self._stream, self._executable = driver, stream, executable

    def launch(self) -> None:
        """Put the whole graph on the stream that it was captured from."""
        self._driver.call("cuGraphLaunch", self._executable, self._stream)

    def __del__(self) -> None:
        self._driver.call("cuGraphExecDestroy", self._executable)


def open_driver() -> Driver:
    """The driver of this machine.

    Raises:
        NotCapturedError: there is none, or it is too old.
    """
    for name in LIBRARIES:
        try:
            return Driver(ctypes.CDLL(name))
        except OSError:
            continue
    raise NotCapturedError("libcuda was not found")


def capture(driver: Driver, stream: int, enqueue: Callable[[], None]) -> CudaGraph:
    """Record what `enqueue` puts on a stream; nothing of it runs until the graph is launched.

    Args:
        driver: of this machine.
        stream: handle of a stream other than the default one, on which nothing is being captured.
        enqueue: must have run once before, since libraries allocate memory in their first run.

    Raises:
        NotCapturedError: something in it cannot be captured, or `enqueue` fails.
    """
    graph = c_void_p()
    driver.call("cuStreamBeginCapture_v2", stream, THREAD_LOCAL)
    failed: Exception | None = None
    try:
        enqueue()
    except Exception as error:  # whatever it was: the stream must leave the capture
        failed = error
    try:
        driver.call("cuStreamEndCapture", stream, ctypes.byref(graph))
    except NotCapturedError as error:
        raise NotCapturedError(f"{error}: the engine cannot be captured") from failed
    try:
        if failed is not None:
            raise NotCapturedError(f"the engine cannot be captured: {failed}") from failed
        return CudaGraph(driver, stream, driver.instantiate(graph))
    finally:
        driver.call("cuGraphDestroy", graph)


def _declared(library: Any, name: str, types: tuple[Any, ...]) -> Any:
    function = getattr(library, name, None)
    if function is None:
        raise NotCapturedError(f"the driver has no {name}")
    function.argtypes, function.restype = types, c_int
    return function
