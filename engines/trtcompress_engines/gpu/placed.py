"""One batch placed for an engine: inputs and outputs in pinned memory of the host and on the device, and one stream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtcompress_graph.errors import CompileError

from .device import GpuDevice
from .tensors import Tensors

if TYPE_CHECKING:
    from ..backend import Array


class Context:
    """An execution context, its optimization profile, and whose shapes and addresses it has at the moment.

    Args:
        engine: an ICudaEngine.
        plan: its file, for messages.

    Raises:
        CompileError: there is no memory for another context.
    """

    def __init__(self, engine: Any, plan: Path) -> None:
        self.context = engine.create_execution_context()
        if self.context is None:
            raise _failed(plan, "TensorRT could not make a context for it: is there memory left?")
        self.profile = 0
        self.holder: object = None


class Placed:
    """A batch and its buffers. It takes its context back where another batch has had it.

    Args:
        device: made current.
        context: of the engine.
        tensors: of the engine.
        plan: its file, for messages.
    """

    def __init__(self, device: GpuDevice, context: Context, tensors: Tensors, plan: Path) -> None:
        self.driver, self.stream = device.driver, device.driver.Stream()
        self.held, self._tensors, self._plan = context, tensors, plan
        self._key = object()  # the context must not keep the buffers of whoever had it last
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._host: dict[str, Any] = {}
        self._device: dict[str, Any] = {}
        self._addresses: dict[str, int] = {}

    def place(self, feed: Mapping[str, Array]) -> None:
        """Put one batch into the pinned memory.

        Raises:
            CompileError: shapes that the engine was not built for, or no memory for them.
        """
        types = self._tensors.types
        arrays = {name: np.ascontiguousarray(feed[name], types[name]) for name in self._tensors.inputs}
        shapes = {name: array.shape for name, array in arrays.items()}
        try:
            if shapes != self._shapes or self._tensors.on_host:
                self._shapes = {}  # none, where it fails half-way
                self._fit(arrays)
                self._shapes = shapes
        except self.driver.Error as error:
            raise self._failed(str(error)) from error
        for name, array in arrays.items():
            self._host[name][...] = array

    def set_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Tell TensorRT the shapes of the inputs.

        Raises:
            CompileError: the engine was not built for them.
        """
        profile = self._tensors.profile(shapes)
        self.held.holder = self._key
        if profile != self.held.profile:
            if not self.held.context.set_optimization_profile_async(profile, self.stream.handle):
                raise self._failed(f"TensorRT refuses optimization profile {profile}")
            self.stream.synchronize()
            self.held.profile = profile
        for name, shape in shapes.items():
            if not self.held.context.set_input_shape(name, shape):
                raise self._failed(f"it takes no input '{name}' of shape {list(shape)}")

    def output_shape(self, name: str) -> tuple[int, ...]:
        """Shape of an output for the shapes that are set.

        Raises:
            CompileError: it depends on the data.
        """
        shape = tuple(self.held.context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise self._failed(f"the length of its output '{name}' depends on the data")
        return shape

    def _fit(self, arrays: Mapping[str, Array]) -> None:
        """Buffers for the shapes, and their addresses. Values on the host may decide on shapes of outputs."""
        self.set_shapes({name: array.shape for name, array in arrays.items()})
        for name, array in arrays.items():
            self._allocate(name, array.shape)
            if name in self._tensors.on_host:
                self._host[name][...] = array
        for name in self._tensors.outputs:
            self._allocate(name, self.output_shape(name))

    def _allocate(self, name: str, shape: tuple[int, ...]) -> None:
        host = self._host[name] = self.driver.pagelocked_empty(shape, self._tensors.types[name])
        if name in self._tensors.on_host:
            address = int(host.ctypes.data)
        else:
            self._device[name] = self.driver.mem_alloc(max(host.nbytes, 1))
            address = int(self._device[name])
        self._addresses[name] = address
        self.held.context.set_tensor_address(name, address)

    def _take_back(self) -> None:
        self.set_shapes(self._shapes)
        for name, address in self._addresses.items():
            self.held.context.set_tensor_address(name, address)

    def copy_in(self) -> None:
        """Put the copies of the inputs on the stream."""
        for name in self._tensors.inputs:
            if name in self._device:
                self.driver.memcpy_htod_async(self._device[name], self._host[name], self.stream)

    def launch(self) -> None:
        """Put the engine on the stream.

        Raises:
            CompileError: TensorRT could not.
        """
        if self.held.holder is not self._key:
            self._take_back()
        if not self.held.context.execute_async_v3(self.stream.handle):
            raise self._failed("TensorRT could not run it; its messages say why")

    def copy_out(self) -> None:
        """Put the copies of the outputs on the stream."""
        for name in self._tensors.outputs:
            if name in self._device:
                self.driver.memcpy_dtoh_async(self._host[name], self._device[name], self.stream)

    def run(self) -> None:
        """Copy in, run, copy out, and wait.

        Raises:
            CompileError: CUDA or TensorRT fails.
        """
        try:
            self.copy_in()
            self.launch()
            self.copy_out()
            self.stream.synchronize()
        except self.driver.Error as error:
            raise self._failed(str(error)) from error

    def outputs(self) -> dict[str, Array]:
        """Copies of the outputs, by name."""
        return {name: self._host[name].copy() for name in self._tensors.outputs}

    def _failed(self, why: str) -> CompileError:
        return _failed(self._plan, why)


def _failed(plan: Path, why: str) -> CompileError:
    return CompileError(f"the engine does not run: {why}", where=str(plan))
