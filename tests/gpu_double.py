"""A stand-in for a GPU: pycuda, TensorRT's runtime over the signatures of a release, and the graphs of libcuda.

Memory of the device is memory of the host, an engine is an ONNX graph that ONNX Runtime runs, and time passes by what
is said here, so that every time that is measured has one right value. pycuda has the names, parameters and types of
version 2026.1 (src/wrapper/wrap_cudadrv.cpp); libcuda the prototypes of cuda.h 12.9.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import re
import threading
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort

from trt_double import double, read

PROTOTYPES = """
CUresult cuStreamBeginCapture_v2(CUstream hStream, CUstreamCaptureMode mode);
CUresult cuStreamEndCapture(CUstream hStream, CUgraph *phGraph);
CUresult cuGraphInstantiateWithFlags(CUgraphExec *phGraphExec, CUgraph hGraph, unsigned long long flags);
CUresult cuGraphInstantiate_v2(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode, char *logBuffer,
    size_t bufferSize);
CUresult cuGraphLaunch(CUgraphExec hGraphExec, CUstream hStream);
CUresult cuGraphExecDestroy(CUgraphExec hGraphExec);
CUresult cuGraphDestroy(CUgraph hGraph);
CUresult cuGetErrorString(CUresult error, const char **pStr);
"""
C_TYPES = {
    **dict.fromkeys(("CUstream", "CUgraph", "CUgraphExec", "CUgraphNode"), ctypes.c_void_p),
    **dict.fromkeys(("CUresult", "CUstreamCaptureMode"), ctypes.c_int),
    **{"unsigned long long": ctypes.c_uint64, "size_t": ctypes.c_size_t, "char *": ctypes.c_char_p},
}
INVALIDATED = 901
TYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int64)": "INT64", "tensor(bool)": "BOOL"}


def prototypes() -> dict[str, tuple[Any, ...]]:
    """Types of the parameters of each function."""
    found = re.findall(r"CUresult (\w+)\(([^)]*)\);", PROTOTYPES)
    return {name: tuple(_c_type(one) for one in text.split(",")) for name, text in found}


def _c_type(parameter: str) -> Any:
    kind = re.sub(r"\w+$", "", parameter.strip()).replace("const ", "").strip()
    if kind in C_TYPES:
        return C_TYPES[kind]
    inner = kind.removesuffix("*").strip()
    return ctypes.POINTER(C_TYPES[inner])


def plan_of(onnx: Path, path: Path, *profiles: Mapping[str, list[list[int]]], gpu: str = "L4", **more: Any) -> Path:
    """Write a plan; `more` are types other than those of the graph (`types`), what lies on the host (`host`), what of
    its weights can be streamed (`streamable`, bytes), and whether it brings a runtime along (`carries_code`)."""
    path.write_bytes(json.dumps({"gpu": gpu, "profiles": profiles, **more}).encode() + b"\n" + onnx.read_bytes())
    return path


class Stream:
    def __init__(self, gpu: Gpu, flags: int = 0) -> None:
        self._gpu, self.handle, self.now = gpu, next(gpu.handles), 0.0
        self.recorded: list[tuple[Callable[[], None], float]] | None = None
        gpu.current()
        gpu.streams[self.handle] = self

    def put(self, work: Callable[[], None], ms: float) -> None:
        self._gpu.current()
        if self.recorded is not None:
            self.recorded.append((work, ms))
        else:
            work()
            self.now += ms

    def synchronize(self) -> None:
        assert self.recorded is None, "a stream that is captured must not be waited for"


class Event:
    def __init__(self, gpu: Gpu, flags: int = 0) -> None:
        gpu.current()

    def record(self, stream: Stream | None = None) -> Event:
        assert isinstance(stream, Stream)
        self.at = stream.now
        return self

    def synchronize(self) -> Event:
        return self

    def time_since(self, event: Event) -> float:
        return self.at - event.at


class DeviceAllocation:
    def __init__(self, size: int) -> None:
        self._memory = ctypes.create_string_buffer(size)

    def __int__(self) -> int:
        return ctypes.addressof(self._memory)


class CudaError(Exception):
    """`pycuda.driver.Error`."""


class Gpu:
    """What a machine with one card has.

    Args:
        release: of TensorRT.
        compute_ms: an engine needs for a sample.
        launch_ms: more where the host launches its kernels one by one.
        bytes_a_ms: that a copy moves.
        largest: bytes that an allocation may have.
    """

    def __init__(
        self,
        release: str = "10.3.0",
        compute_ms: float = 2.0,
        launch_ms: float = 0.5,
        bytes_a_ms: float = 1000.0,
        largest: int = 1 << 30,
    ) -> None:
        self.compute_ms, self.launch_ms, self.bytes_a_ms, self.largest = compute_ms, launch_ms, bytes_a_ms, largest
        self.handles = itertools.count(7)
        self.streams: dict[int, Stream] = {}
        self.contexts: dict[int, int] = {}
        self.graphs: dict[int, list[tuple[Callable[[], None], float]]] = {}
        self.refuses_capture = False
        self.shares_profiles = int(release.partition(".")[0]) >= 10  # before, a profile belongs to one context
        self.pinned: list[Any] = []
        self._alive: dict[int, Any] = {}
        self.trt: Any = double(read(release))
        self.trt.__spec__ = ModuleSpec("tensorrt", None)
        self._behave()
        self.libcuda = SimpleNamespace(**{name: self._function(name, types) for name, types in prototypes().items()})

    def current(self) -> None:
        assert self.contexts.get(threading.get_ident()), "no context is current in this thread"

    # pycuda

    def modules(self) -> dict[str, ModuleType]:
        package, driver = ModuleType("pycuda"), ModuleType("pycuda.driver")
        package.__spec__, package.__path__ = ModuleSpec("pycuda", None), []  # type: ignore[assignment]
        context = SimpleNamespace(push=lambda: self._push(1), pop=lambda: self._push(-1))
        card = SimpleNamespace(pci_bus_id=lambda: "0000:01:00.0", retain_primary_context=lambda: context)
        package.driver = driver  # type: ignore[attr-defined]
        names: dict[str, Any] = {
            "init": lambda flags=0: None,
            "Device": lambda number: card,
            "Stream": lambda flags=0: Stream(self, flags),
            "Event": lambda flags=0: Event(self, flags),
            "Error": CudaError,
            "pagelocked_empty": self._pagelocked_empty,
            "mem_alloc": self._mem_alloc,
            "memcpy_htod_async": self._memcpy_htod_async,
            "memcpy_dtoh_async": self._memcpy_dtoh_async,
        }
        vars(driver).update(names)
        return {"pycuda": package, "pycuda.driver": driver, "tensorrt": self.trt}

    def _push(self, by: int) -> None:
        thread = threading.get_ident()
        self.contexts[thread] = self.contexts.get(thread, 0) + by

    def _pagelocked_empty(self, shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
        self.current()
        self.pinned.append(np.empty(shape, dtype))
        return self.pinned[-1]

    def _mem_alloc(self, bytes: int) -> DeviceAllocation:
        self.current()
        if bytes > self.largest:
            raise CudaError("cuMemAlloc failed: out of memory")
        return DeviceAllocation(bytes)

    def _memcpy_htod_async(self, dest: DeviceAllocation, src: Any, stream: Stream) -> None:
        assert any(src is held for held in self.pinned)
        stream.put(lambda: ctypes.memmove(int(dest), src.ctypes.data, src.nbytes), src.nbytes / self.bytes_a_ms)

    def _memcpy_dtoh_async(self, dest: Any, src: DeviceAllocation, stream: Stream) -> None:
        assert any(dest is held for held in self.pinned)
        stream.put(lambda: ctypes.memmove(dest.ctypes.data, int(src), dest.nbytes), dest.nbytes / self.bytes_a_ms)

    # TensorRT

    def _behave(self) -> None:
        """Put behaviour behind the signatures."""
        trt = self.trt

        def behave(kind: Any, name: str, answer: Callable[..., Any]) -> None:
            checked = vars(kind)[name]

            def method(own: Any, *args: Any) -> Any:
                checked(own, *args)
                return answer(self._alive.get(id(own)), *args)

            setattr(kind, name, method)

        def tell(kind: Any, name: str, answer: Callable[[Any], Any]) -> None:
            assert isinstance(vars(kind)[name], property), f"{self.trt.__version__} has no {name}"
            setattr(kind, name, property(lambda own: answer(self._alive[id(own)])))

        behave(trt.Runtime, "deserialize_cuda_engine", self._deserialize)
        engine, context = trt.ICudaEngine, trt.IExecutionContext
        tell(engine, "num_io_tensors", lambda held: len(held.names))
        tell(engine, "num_optimization_profiles", lambda held: len(held.profiles) or 1)
        behave(engine, "get_tensor_name", lambda held, index: held.names[index])
        behave(engine, "get_tensor_mode", lambda held, name: held.mode(name))
        behave(engine, "get_tensor_dtype", lambda held, name: trt.DataType[held.type(name)])
        behave(engine, "get_tensor_location", lambda held, name: held.place(name))
        behave(engine, "get_tensor_profile_shape", lambda held, name, index: held.range(name, index))
        if hasattr(engine, "streamable_weights_size"):
            tell(engine, "streamable_weights_size", lambda held: held.streamable)
        if hasattr(engine, "minimum_weight_streaming_budget"):
            tell(engine, "minimum_weight_streaming_budget", lambda held: held.streamable // 10)
        if hasattr(engine, "get_weight_streaming_automatic_budget"):
            behave(engine, "get_weight_streaming_automatic_budget", lambda held: held.streamable // 4)
        behave(engine, "create_execution_context", lambda held: self._new(context, _Context(self, held)))
        behave(context, "set_optimization_profile_async", lambda held, index, stream: held.use(index, stream))
        behave(context, "set_input_shape", lambda held, name, shape: held.set_shape(name, shape))
        behave(context, "get_tensor_shape", lambda held, name: held.shape(name))
        behave(context, "set_tensor_address", lambda held, name, memory: held.addresses.__setitem__(name, memory))
        behave(context, "execute_async_v3", lambda held, stream: held.execute(self.streams[stream]))
        if hasattr(engine, "num_bindings"):  # up to 8.6 tensors have numbers too, those of each profile for themselves
            tell(engine, "num_bindings", lambda held: len(held.names) * (len(held.profiles) or 1))
            behave(engine, "get_binding_name", lambda held, index: held.names[index])
            behave(engine, "get_binding_dtype", lambda held, index: trt.DataType[held.type(held.names[index])])
            behave(engine, "binding_is_input", lambda held, index: held.names[index] in held.inputs)
            behave(engine, "get_profile_shape", lambda held, index, place: held.range(held.names[place], index))
            behave(context, "set_binding_shape", lambda held, place, shape: held.set_shape(held.bound(place), shape))
            behave(context, "get_binding_shape", lambda held, place: held.shape(held.bound(place)))
            behave(context, "execute_async_v2", lambda held, all, stream: held.run_bound(all, self.streams[stream]))

    def _new(self, kind: Any, held: Any) -> Any:
        made = kind.__new__(kind)
        self._alive[id(made)] = held
        held.made = made  # ids are not used again while this lives
        return made

    def _deserialize(self, _: Any, plan: bytes) -> Any:
        self.current()
        note, _, model = plan.partition(b"\n")
        told = json.loads(note)
        told_all = [(owner, name) for owner, name, values in self.trt.calls if values == (True,)]
        assert not told.get("carries_code") or ("Runtime", "engine_host_code_allowed") in told_all
        if told["gpu"] != "L4":
            logger = next(v[0] for owner, name, v in self.trt.calls if (owner, name) == ("Runtime", "__init__"))
            logger.log(self.trt.ILogger.ERROR, "The engine plan file is generated on an incompatible device. ")
            return None
        return self._new(self.trt.ICudaEngine, _Engine(self.trt, told, model))

    # libcuda

    def _function(self, name: str, types: tuple[Any, ...]) -> Any:
        return ctypes.CFUNCTYPE(ctypes.c_int, *types)(getattr(self, f"_{name}"))

    def _cuStreamBeginCapture_v2(self, stream: int, mode: int) -> int:
        assert mode == 1
        self.streams[stream].recorded = []
        return 0

    def _cuStreamEndCapture(self, stream: int, graph: Any) -> int:
        recorded, self.streams[stream].recorded = self.streams[stream].recorded, None
        if self.refuses_capture:
            return INVALIDATED
        graph[0] = self._graph(recorded)
        return 0

    def _graph(self, recorded: Any) -> int:
        handle = next(self.handles)
        self.graphs[handle] = recorded
        return handle

    def _cuGraphInstantiateWithFlags(self, made: Any, graph: int, flags: int) -> int:
        assert flags == 0
        made[0] = self._graph([(work, ms - self.launch_ms) for work, ms in self.graphs[graph]])
        return 0

    def _cuGraphInstantiate_v2(self, made: Any, graph: int, node: Any, log: Any, size: int) -> int:
        assert (bool(node), log, size) == (False, None, 0)
        return self._cuGraphInstantiateWithFlags(made, graph, 0)

    def _cuGraphLaunch(self, executable: int, stream: int) -> int:
        for work, ms in self.graphs[executable]:
            self.streams[stream].put(work, ms)
        return 0

    def _cuGraphExecDestroy(self, executable: int) -> int:
        del self.graphs[executable]
        return 0

    def _cuGraphDestroy(self, graph: int) -> int:
        del self.graphs[graph]
        return 0

    def _cuGetErrorString(self, error: int, words: Any) -> int:
        words[0] = b"operation failed due to a previous error during capture"
        return 0


class _Engine:
    def __init__(self, trt: Any, told: dict[str, Any], model: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        self._trt, self.profiles, self._types = trt, told["profiles"], told.get("types", {})
        self._host, self.streamable = told.get("host", []), told.get("streamable", 0)
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.names = [*self.inputs, *self.outputs]
        self.taken: set[int] = set()
        self.values = {v.name: v for v in (*self.session.get_inputs(), *self.session.get_outputs())}

    def mode(self, name: str) -> Any:
        return self._trt.TensorIOMode.INPUT if name in self.inputs else self._trt.TensorIOMode.OUTPUT

    def place(self, name: str) -> Any:
        return self._trt.TensorLocation.HOST if name in self._host else self._trt.TensorLocation.DEVICE

    def type(self, name: str) -> str:
        return str(self._types.get(name, TYPES[self.values[name].type]))

    def range(self, name: str, profile: int) -> list[tuple[int, ...]]:
        fixed = [self.values[name].shape] * 3
        return [tuple(shape) for shape in (self.profiles[profile] if self.profiles else {}).get(name, fixed)]


class _Context:
    def __init__(self, gpu: Gpu, engine: _Engine) -> None:
        self._gpu, self._engine, self.profile = gpu, engine, -1
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self._choose(0)

    def use(self, profile: int, stream: int) -> bool:
        assert stream in self._gpu.streams
        return self._choose(profile)

    def _choose(self, profile: int) -> bool:
        """Contexts live as long as their engine here, and keep the profile that they use."""
        taken = self._engine.taken
        if self._engine.profiles and not self._gpu.shares_profiles:
            if profile in taken - {self.profile}:
                return False
            taken.discard(self.profile)
            taken.add(profile)
        self.profile = profile
        return True

    def set_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self.profile < 0:
            return False
        least, _, greatest = self._engine.range(name, self.profile)
        self.shapes[name] = shape
        return all(a <= b <= c for a, b, c in zip(least, shape, greatest, strict=True))

    def shape(self, name: str) -> tuple[int, ...]:
        batch = next(iter(self.shapes.values()))[0]
        return tuple(batch if n == "batch" else n if isinstance(n, int) else -1 for n in self._shape_of(name))

    def _shape_of(self, name: str) -> list[Any]:
        found: list[Any] = self._engine.values[name].shape
        return found

    def bound(self, place: int) -> str:
        """Name of a tensor by its number, which is one of the profile that is in use."""
        profile, index = divmod(place, len(self._engine.names))
        assert profile == self.profile
        return str(self._engine.names[index])

    def run_bound(self, addresses: list[int], stream: Stream) -> bool:
        first = self.profile * len(self._engine.names)
        assert len(addresses) == len(self._engine.names) * (len(self._engine.profiles) or 1)
        self.addresses = dict(zip(self._engine.names, addresses[first:], strict=False))
        return self.execute(stream)

    def execute(self, stream: Stream) -> bool:
        batch = next(iter(self.shapes.values()))[0]
        stream.put(self._compute, self._gpu.compute_ms * batch + self._gpu.launch_ms)
        return True

    def _compute(self) -> None:
        feed = {}
        for name in self._engine.inputs:
            kind = np.dtype({"FLOAT": "f4", "HALF": "f2", "INT64": "i8"}[self._engine.type(name)])
            size = int(np.prod(self.shapes[name])) * kind.itemsize
            held = ctypes.string_at(self.addresses[name], size)
            feed[name] = np.frombuffer(held, kind).reshape(self.shapes[name])
        for name, value in zip(self._engine.outputs, self._engine.session.run(None, feed), strict=True):
            ctypes.memmove(self.addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes)
