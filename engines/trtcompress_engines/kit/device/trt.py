"""Every call of TensorRT's Python API that runs an engine, for 8.4 to 11.

From 8.5 on tensors are addressed by name (`set_tensor_address`, `execute_async_v3`), before by index ("bindings").
An engine of several profiles runs each shape with the one whose usual shapes are nearest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .kit import OTHER_ENGINE, OTHER_SHAPE, KitError
from .streaming import AUTOMATIC, BudgetError, set_budget

if TYPE_CHECKING:
    from .buffers import Device

NUMPY = {"FLOAT": "f4", "HALF": "f2", "INT8": "i1", "INT32": "i4", "INT64": "i8", "BOOL": "?", "UINT8": "u1"}
"""numpy's type of each type of TensorRT; its own `nptype` fails with some versions of numpy."""


def load(releases: Sequence[tuple[str, str]], asked: str = "") -> Any:
    """TensorRT, of a major version that the kit is for, or of the release that is asked for.

    Raises:
        KitError: it is not installed, or of another version.
    """
    try:
        import tensorrt
    except ImportError as error:
        hint = (
            "install JetPack's packages (sudo apt install nvidia-jetpack); without it: validate --backend onnxruntime"
        )
        raise KitError(f"TensorRT's Python module cannot be imported ({error}): {hint}") from None
    what = "this kit is for TensorRT {}, and this device has {}"
    if asked and version_of(tensorrt)[:2] != tuple(int(part) for part in asked.split(".")[:2]):
        raise KitError(what.format(asked + " (tensorrt.version of its config)", tensorrt.__version__))
    wanted = sorted({int(version.split(".")[0]) for _, version in releases})
    if version_of(tensorrt)[0] not in wanted:
        told = ", ".join(f"{version} ({release})" for release, version in releases)
        raise KitError((what + ": it carries {}").format(" or ".join(map(str, wanted)), tensorrt.__version__, told))
    return tensorrt


def version_of(trt: Any) -> tuple[int, int, int]:
    """Major, minor and patch."""
    numbers = [int(part) for part in re.findall(r"\d+", trt.__version__)[:3]] + [0, 0, 0]
    return numbers[0], numbers[1], numbers[2]


class _Named:
    """Tensors by name: TensorRT 8.5 and later."""

    def __init__(self, trt: Any, engine: Any, context: Any) -> None:
        self._engine, self._context = engine, context
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.types = {name: _numpy(engine.get_tensor_dtype(name)) for name in names}
        self.inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if name not in self.inputs]

    def profile(self, index: int, name: str) -> Any:
        return self._engine.get_tensor_profile_shape(name, index)

    def use(self, index: int, stream: int) -> bool:
        return bool(self._context.set_optimization_profile_async(index, stream))

    def set_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return bool(self._context.set_input_shape(name, shape))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._context.get_tensor_shape(name))

    def run(self, addresses: Mapping[str, int], stream: int) -> Callable[[], bool]:
        for name, address in addresses.items():
            self._context.set_tensor_address(name, address)
        return lambda: bool(self._context.execute_async_v3(stream))


class _Bound:
    """Tensors by index: TensorRT before 8.5. Each profile has bindings of its own, one after the other."""

    def __init__(self, engine: Any, context: Any) -> None:
        self._engine, self._context, self._first = engine, context, 0
        self._all = engine.num_bindings
        count = self._all // max(1, engine.num_optimization_profiles)
        self._names = [engine.get_binding_name(i) for i in range(count)]
        self.types = {self._names[i]: _numpy(engine.get_binding_dtype(i)) for i in range(count)}
        self.inputs = [self._names[i] for i in range(count) if engine.binding_is_input(i)]
        self.outputs = [name for name in self._names if name not in self.inputs]

    def profile(self, index: int, name: str) -> Any:
        return self._engine.get_profile_shape(index, self._names.index(name))

    def use(self, index: int, stream: int) -> bool:
        self._first = index * len(self._names)
        return bool(self._context.set_optimization_profile_async(index, stream))

    def set_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return bool(self._context.set_binding_shape(self._place(name), shape))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._context.get_binding_shape(self._place(name)))

    def run(self, addresses: Mapping[str, int], stream: int) -> Callable[[], bool]:
        bindings = [0] * self._all
        bindings[self._first : self._first + len(self._names)] = [addresses[name] for name in self._names]
        return lambda: bool(self._context.execute_async_v2(bindings, stream))

    def _place(self, name: str) -> int:
        return self._first + self._names.index(name)


def _numpy(dtype: Any) -> Any:
    if dtype.name not in NUMPY:
        raise KitError(f"the engine has a tensor of type {dtype.name}, which numpy lacks", code=4)
    return np.dtype(NUMPY[dtype.name])


class TensorRTEngine:
    """An engine that is ready to run.

    `budget` says how much of streamed weights stays in GPU memory (see streaming.py); an engine that streams none has
    no use for it. `dla` is the core that it was built for.

    Raises:
        KitError: the plan was built by another TensorRT or for another GPU, or TensorRT does not take the budget.
    """

    def __init__(self, trt: Any, plan: bytes, device: Device, budget: str = AUTOMATIC, dla: int | None = None) -> None:
        self._device = device
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        if hasattr(self._runtime, "engine_host_code_allowed"):  # 8.6: a version-compatible plan brings a runtime along
            self._runtime.engine_host_code_allowed = True
        if dla is not None:  # else it runs on core 0, whatever it was built for
            self._runtime.DLA_core = dla
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            again = "build it on this very device with ./build --force"
            raise KitError(f"TensorRT cannot load this engine: {again}", code=OTHER_ENGINE)
        try:
            self.streamed_budget = set_budget(self._engine, budget)  # before there is a context
        except BudgetError as error:
            again = (
                "give another tensorrt.weight_streaming_budget in the config, or leave it out, and make the kit again"
            )
            raise KitError(f"{error}: {again}", code=4) from None
        context = self._engine.create_execution_context()
        if context is None:
            raise KitError("TensorRT could not make a context for the engine: is there memory left?", code=4)
        named = hasattr(self._engine, "num_io_tensors")
        self._io: Any = _Named(trt, self._engine, context) if named else _Bound(self._engine, context)
        self._buffers: dict[str, tuple[int, Any]] = {}
        self._profiles, self._profile = int(self._engine.num_optimization_profiles), 0

    @property
    def activation_bytes(self) -> int | None:
        """Memory for what flows inside, as TensorRT tells it."""
        for name in ("device_memory_size_v2", "device_memory_size"):
            if hasattr(self._engine, name):
                return int(getattr(self._engine, name))
        return None

    def bind(self, feed: Mapping[str, Any]) -> Callable[[], None]:
        """Place inputs on the device; the call that comes back runs the engine once and waits.

        Raises:
            KitError: a shape that the engine was not built for.
        """
        addresses = {}
        self._choose_profile({name: np.shape(feed[name]) for name in self._io.inputs})
        for name in self._io.inputs:
            array = np.ascontiguousarray(feed[name], dtype=self._io.types[name])
            if not self._io.set_shape(name, tuple(array.shape)):
                raise KitError(f"the engine takes no input '{name}' of shape {list(array.shape)}", code=OTHER_SHAPE)
            addresses[name] = int(self._buffer(name, array.nbytes))
            self._device.upload(self._buffers[name][1], array)
        for name in self._io.outputs:
            addresses[name] = int(self._buffer(name, self._empty(name).nbytes))
        run = self._io.run(addresses, self._device.stream)

        def call() -> None:
            if not run():
                raise KitError("TensorRT could not run the engine; its messages above say why", code=4)
            self._device.synchronize()

        return call

    def infer(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name for one batch of inputs by name."""
        self.bind(feed)()
        outputs = {name: self._empty(name) for name in self._io.outputs}
        for name, array in outputs.items():
            self._device.download(array, self._buffers[name][1])
        return outputs

    def _choose_profile(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Of the profiles that hold the shapes, the one whose usual shapes are nearest; else the one that is used."""
        if self._profiles < 2:
            return
        away = {}
        for index in range(self._profiles):
            held = {name: [tuple(each) for each in self._io.profile(index, name)] for name in shapes}
            pairs = [(length, held[name], axis) for name, shape in shapes.items() for axis, length in enumerate(shape)]
            if all(low[axis] <= length <= high[axis] for length, (low, _, high), axis in pairs):
                away[index] = sum(abs(length - usual[axis]) for length, (_, usual, _), axis in pairs)
        best = min(away, key=lambda index: away[index]) if away else self._profile
        if best != self._profile:
            if not self._io.use(best, self._device.stream):
                raise KitError(f"TensorRT could not switch to profile {best}; its messages above say why", code=4)
            self._device.synchronize()
            self._profile = best

    def _empty(self, name: str) -> Any:
        shape = self._io.shape(name)
        if min(shape, default=0) < 0:
            raise KitError(f"the length of output '{name}' depends on the data: it cannot be checked here")
        return np.empty(shape, dtype=self._io.types[name])

    def _buffer(self, name: str, size: int) -> Any:
        """The tensor's buffer, a larger one where it is too small."""
        if name not in self._buffers or self._buffers[name][0] < size:
            self._buffers[name] = (size, self._device.allocate(size))
        return self._buffers[name][1]
