"""Runs a plan with TensorRT for RTX, in the very release that built it."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from .cudart import Cuda, load_cudart

BINDINGS = ("tensorrt_rtx", "tensorrt_rtx_bindings")
_EP = "onnxruntime_ep_nv_tensorrt_rtx"
_LIBRARIES = ("libcudart.so*", "libtensorrt_rtx.so*", "libtensorrt_onnxparser_rtx.so*")


class Runner:
    """A deserialized plan with its execution context and growing device buffers.

    Args:
        path: the plan.
        parameters: of `config.pbtxt`: `tensorrt_rtx_version` is the release that the plan needs,
            `weight_streaming_budget` how much of streamed weights stays on the GPU.
        args: what Triton says about the instance: `model_instance_device_id` is the GPU.

    Raises:
        RuntimeError: TensorRT for RTX is missing, is of another release, or refuses the plan.
    """

    def __init__(self, path: Path, parameters: dict[str, str], args: dict[str, str]) -> None:
        self._trt = load_bindings()
        check_version(self._trt.__version__, parameters["tensorrt_rtx_version"])
        self._cuda = Cuda(int(args["model_instance_device_id"]), load_cudart())
        self._logger = self._trt.Logger(self._trt.Logger.WARNING)
        self._runtime = self._trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise RuntimeError(f"TensorRT for RTX refuses {path.name}: it was built for another kind of GPU")
        if budget := parameters.get("weight_streaming_budget"):  # before there is a context
            importlib.import_module(".streaming", __package__).set_budget(self._engine, budget)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise RuntimeError("TensorRT for RTX could not create an execution context: too little GPU memory")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT for name in names}
        self.inputs = [name for name in names if is_input[name]]
        self.outputs = [name for name in names if not is_input[name]]
        self._dtypes = {name: np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))) for name in names}
        # Tensors whose values decide shapes are read and written on the CPU.
        host = self._trt.TensorLocation.HOST
        self._on_host = {name for name in names if self._engine.get_tensor_location(name) == host}
        self._buffers: dict[str, tuple[int, int]] = {}
        self._profiles, self._profile = int(self._engine.num_optimization_profiles), 0

    def run(self, feed: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name; Triton has no scalars, so they come and go as arrays of shape `[1]`.

        Raises:
            ValueError: a shape outside the plan's optimization profiles.
            RuntimeError: CUDA or TensorRT failed.
        """
        self._cuda.use()
        self._use_profile({name: np.shape(value) for name, value in feed.items()})
        held = [self._bind_input(name, feed[name]) for name in self.inputs]
        missing = self._context.infer_shapes()
        if missing:
            raise ValueError(f"the shape or the values of {', '.join(missing)} are not given")
        results = {name: self._bind_output(name) for name in self.outputs}
        if not self._context.execute_async_v3(self._cuda.stream):
            raise RuntimeError("TensorRT for RTX could not run the plan; its own words are in the server's log")
        for name, array in results.items():
            if name not in self._on_host:
                self._cuda.download(array, self._buffers[name][0])
        self._cuda.synchronize()
        del held  # the copies to the device read them until here
        return {name: np.atleast_1d(array) for name, array in results.items()}

    def greatest_batch(self) -> int | None:
        """Of the profile that takes the most; None where no input has a batch."""
        rows = [name for name in self.inputs if name not in self._on_host and len(self._engine.get_tensor_shape(name))]
        held = (
            min(int(self._engine.get_tensor_profile_shape(name, index)[2][0]) for name in rows)
            for index in range(self._profiles if rows else 0)
        )
        return max(held, default=None)

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._cuda.use()
        del self._context, self._engine, self._runtime
        for address, _ in self._buffers.values():
            self._cuda.free(address)
        self._buffers.clear()
        self._cuda.close()

    def _use_profile(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Of the profiles that hold the shapes, the one whose usual shapes are nearest."""
        if self._profiles < 2:
            return
        away = {index: self._away(index, shapes) for index in range(self._profiles)}
        best = min(away, key=lambda index: away[index])
        if best != self._profile:
            if not self._context.set_optimization_profile_async(best, self._cuda.stream):
                raise RuntimeError(f"TensorRT for RTX could not switch to the plan's profile {best}")
            self._cuda.synchronize()
            self._profile = best

    def _away(self, index: int, shapes: dict[str, tuple[int, ...]]) -> float:
        """How far the shapes are from a profile's usual ones; endless where it does not hold them."""
        total = 0.0
        for name in self.inputs:
            low, usual, high = (tuple(each) for each in self._engine.get_tensor_profile_shape(name, index))
            lengths = shapes[name][: len(usual)]
            axes = range(len(usual))
            if len(lengths) != len(usual) or not all(low[axis] <= lengths[axis] <= high[axis] for axis in axes):
                return float("inf")
            total += sum(abs(lengths[axis] - usual[axis]) for axis in axes)
        return total

    def _bind_input(self, name: str, value: Any) -> Any:
        rank = len(self._engine.get_tensor_shape(name))
        array = np.ascontiguousarray(value, dtype=self._dtypes[name])
        array = array if rank else array.reshape(())
        if not self._context.set_input_shape(name, tuple(array.shape)):
            raise ValueError(f"input '{name}' of shape {array.shape} is outside the shapes that the plan was built for")
        self._set_address(name, array)
        if name not in self._on_host:
            self._cuda.upload(self._buffers[name][0], array)
        return array

    def _bind_output(self, name: str) -> Any:
        shape = tuple(self._context.get_tensor_shape(name))
        if any(length < 0 for length in shape):
            raise ValueError(f"the shape of output '{name}' depends on the values of the inputs: this is not served")
        array = np.empty(shape, self._dtypes[name])
        self._set_address(name, array)
        return array

    def _set_address(self, name: str, array: Any) -> None:
        address = array.ctypes.data if name in self._on_host else self._buffer(name, array.nbytes)
        if not self._context.set_tensor_address(name, address):
            raise RuntimeError(f"TensorRT for RTX refuses the buffer of tensor '{name}'")

    def _buffer(self, name: str, size: int) -> int:
        """A device buffer of at least `size` bytes that is kept for the next run."""
        address, held = self._buffers.pop(name, (0, 0))
        if held < max(size, 1):
            if held:
                self._cuda.free(address)
            address, held = self._cuda.allocate(max(size, 1)), max(size, 1)
        self._buffers[name] = (address, held)
        return address


def check_version(found: str, needed: str) -> None:
    """A plan loads only in the release that built it.

    Raises:
        RuntimeError: another release.
    """
    if found.split(".")[:3] != needed.split(".")[:3]:
        raise RuntimeError(
            f"the plan was built by TensorRT for RTX {needed}, the server has {found}, which cannot load it: "
            f"install {needed}, or build the engine again with {found}"
        )


def load_bindings() -> Any:
    """TensorRT for RTX: its own package, or the bare bindings over libraries that ONNX Runtime's provider brings.

    Raises:
        RuntimeError: neither is installed.
    """
    provider = importlib.util.find_spec(_EP)
    for name in BINDINGS:
        if importlib.util.find_spec(name) is None:
            continue
        if name == "tensorrt_rtx_bindings" and provider is not None and provider.origin:
            for pattern in _LIBRARIES:
                for file in sorted(Path(provider.origin).parent.glob(pattern)):
                    ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)
        return importlib.import_module(name)
    raise RuntimeError("TensorRT for RTX is missing in the server's Python: pip install tensorrt-rtx")
