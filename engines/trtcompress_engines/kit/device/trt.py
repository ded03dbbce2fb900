"""Every call of TensorRT's Python API, for 8.4 to 10.x.

From 8.5 on tensors are addressed by name (`set_tensor_address`, `execute_async_v3`), before by index ("bindings").
From 10 on a graph is strongly typed; 8 takes the types of the graph only where flags allow them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .kit import KitError

if TYPE_CHECKING:
    from .buffers import Device

NUMPY = {"FLOAT": "f4", "HALF": "f2", "INT8": "i1", "INT32": "i4", "INT64": "i8", "BOOL": "?", "UINT8": "u1"}
"""numpy's type of each type of TensorRT; its own `nptype` fails with some versions of numpy."""


def load(releases: Sequence[tuple[str, str]]) -> Any:
    """TensorRT, of a major version that the kit is for.

    Raises:
        KitError: it is not installed, or of another major version.
    """
    try:
        import tensorrt
    except ImportError as error:
        hint = "install JetPack's packages (sudo apt install nvidia-jetpack)"
        raise KitError(f"TensorRT's Python module cannot be imported ({error}): {hint}") from None
    wanted = sorted({int(version.split(".")[0]) for _, version in releases})
    if int(tensorrt.__version__.split(".")[0]) not in wanted:
        told = ", ".join(f"{version} ({release})" for release, version in releases)
        what = "this kit is for TensorRT {}, and this device has {}: it carries {}"
        raise KitError(what.format(" or ".join(map(str, wanted)), tensorrt.__version__, told))
    return tensorrt


def version_of(trt: Any) -> tuple[int, int, int]:
    """Major, minor and patch."""
    numbers = [int(part) for part in re.findall(r"\d+", trt.__version__)[:3]] + [0, 0, 0]
    return numbers[0], numbers[1], numbers[2]


def with_own_header(cache: bytes, version: tuple[int, int, int]) -> bytes:
    """The cache under the header of this very release: TensorRT ignores one of another patch release."""
    major, minor, patch = version
    number = major * (10000 if major >= 10 else 1000) + minor * 100 + patch
    _, _, lines = cache.partition(b"\n")
    return f"TRT-{number}-EntropyCalibration2\n".encode() + lines


def build_plan(
    trt: Any,
    model: Path,
    profiles: Mapping[str, Sequence[Sequence[int]]],
    flags: Sequence[str],
    cache: bytes | None = None,
    dla: int | None = None,
) -> bytes:
    """Build an engine.

    Args:
        trt: the module.
        model: the ONNX file.
        profiles: least, usual and greatest shape of each dynamic input.
        flags: names of BuilderFlag; those of types are for graphs that are not strongly typed.
        cache: calibration.cache, for the implicit path.
        dla: core of the DLA; what it cannot run goes to the GPU.

    Raises:
        KitError: TensorRT refuses the graph.
    """
    version = version_of(trt)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    typed = version[0] >= 10 and cache is None
    creation = trt.NetworkDefinitionCreationFlag
    asked = [creation.STRONGLY_TYPED] if typed else [creation.EXPLICIT_BATCH] if version[0] < 10 else []
    network = builder.create_network(sum(1 << int(flag) for flag in asked))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        words = "; ".join(_told(parser.get_error(i)) for i in range(parser.num_errors))
        raise KitError(f"TensorRT cannot read {model.parent.name}: {words}", code=4)
    config = builder.create_builder_config()
    for flag in flags:
        if typed and flag in ("FP16", "INT8", "BF16"):
            continue
        if not hasattr(trt.BuilderFlag, flag):
            raise KitError(f"TensorRT {trt.__version__} has no {flag}: build for another precision")
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if dla is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    profile = builder.create_optimization_profile()
    for name, (least, usual, greatest) in profiles.items():
        profile.set_shape(name, tuple(least), tuple(usual), tuple(greatest))
    if profiles:
        config.add_optimization_profile(profile)
    if cache is not None:
        calibrator = _calibrator(trt, with_own_header(cache, version))
        config.int8_calibrator = calibrator
        if profiles:
            config.set_calibration_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise KitError(f"TensorRT could not build {model.parent.name}; its messages above say why", code=4)
    return bytes(plan)


def _told(error: Any) -> str:
    """What the parser says, with the node by its name where that is told (from 10 on)."""
    if not hasattr(error, "node_name"):
        return f"{error.desc()} (node {error.node()})"
    return f"{error.desc()} (node {error.node_name()}, {error.node_operator()})"


def _calibrator(trt: Any, cache: bytes) -> Any:
    """A calibrator that has the scales already and no samples."""

    class FromCache(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, cache: bytes) -> None:
            pass

    return FromCache()


class _Named:
    """Tensors by name: TensorRT 8.5 and later."""

    def __init__(self, trt: Any, engine: Any, context: Any) -> None:
        self._context = context
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.types = {name: _numpy(engine.get_tensor_dtype(name)) for name in names}
        self.inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if name not in self.inputs]

    def set_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return bool(self._context.set_input_shape(name, shape))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._context.get_tensor_shape(name))

    def run(self, addresses: Mapping[str, int], stream: int) -> Callable[[], bool]:
        for name, address in addresses.items():
            self._context.set_tensor_address(name, address)
        return lambda: bool(self._context.execute_async_v3(stream))


class _Bound:
    """Tensors by index: TensorRT before 8.5."""

    def __init__(self, engine: Any, context: Any) -> None:
        self._context = context
        count = engine.num_bindings
        self._names = [engine.get_binding_name(i) for i in range(count)]
        self.types = {self._names[i]: _numpy(engine.get_binding_dtype(i)) for i in range(count)}
        self.inputs = [self._names[i] for i in range(count) if engine.binding_is_input(i)]
        self.outputs = [name for name in self._names if name not in self.inputs]

    def set_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return bool(self._context.set_binding_shape(self._names.index(name), shape))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._context.get_binding_shape(self._names.index(name)))

    def run(self, addresses: Mapping[str, int], stream: int) -> Callable[[], bool]:
        bindings = [addresses[name] for name in self._names]
        return lambda: bool(self._context.execute_async_v2(bindings, stream))


def _numpy(dtype: Any) -> Any:
    if dtype.name not in NUMPY:
        raise KitError(f"the engine has a tensor of type {dtype.name}, which numpy lacks", code=4)
    return np.dtype(NUMPY[dtype.name])


class TensorRTEngine:
    """An engine that is ready to run.

    Raises:
        KitError: the plan was built by another TensorRT or for another GPU.
    """

    def __init__(self, trt: Any, plan: bytes, device: Device) -> None:
        self._device = device
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise KitError("TensorRT cannot load this engine: build it on this very device with ./build --force")
        context = self._engine.create_execution_context()
        if context is None:
            raise KitError("TensorRT could not make a context for the engine: is there memory left?", code=4)
        named = hasattr(self._engine, "num_io_tensors")
        self._io: Any = _Named(trt, self._engine, context) if named else _Bound(self._engine, context)
        self._buffers: dict[str, tuple[int, Any]] = {}

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
        for name in self._io.inputs:
            array = np.ascontiguousarray(feed[name], dtype=self._io.types[name])
            if not self._io.set_shape(name, tuple(array.shape)):
                raise KitError(f"the engine takes no input '{name}' of shape {list(array.shape)}", code=4)
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
