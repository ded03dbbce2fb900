"""Stands in for TensorRT's Python module: only what a kit calls, and of each version only what that version has.

An engine is the ONNX graph behind a note of how it was built; ONNX Runtime runs it. Its clock goes on by what such a
graph might take on a device, so that INT8 is the fastest and FP32 the slowest however busy this machine is;
STAND_IN_SLOW names what takes longest (`int8`, `fp16`). The environment variable STAND_IN_TENSORRT names the version,
8.4.1 where it is not set.
"""

import ctypes
import enum
import json
import os
import time
from pathlib import Path

import numpy as np
import onnxruntime

__version__ = os.environ.get("STAND_IN_TENSORRT", "8.4.1")
_MAJOR, _MINOR = (int(part) for part in __version__.split(".")[:2])
_NAMED = (_MAJOR, _MINOR) >= (8, 5)
_TYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int64)": "INT32" if _MAJOR < 10 else "INT64"}


_SECONDS = {"int8": 0.05, "fp16": 0.1, "fp32": 0.2}


class _Clock:
    """This machine's, and how far it is ahead of it."""

    def __init__(self):
        self.ahead, self._real = 0.0, time.perf_counter

    def __call__(self):
        return self._real() + self.ahead


time.perf_counter = _clock = _Clock()


def _log(*words):
    """Tell what an engine does, in the file that STAND_IN_LOG names, beside what others tell there."""
    if "STAND_IN_LOG" in os.environ:
        with Path(os.environ["STAND_IN_LOG"]).open("a") as stream:
            stream.write(" ".join(words) + "\n")


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, INT64 = range(6)


class DeviceType(enum.Enum):
    GPU, DLA = range(2)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class BuilderFlag(enum.Enum):
    GPU_FALLBACK, SPARSE_WEIGHTS, REFIT, TF32 = range(2, 6)
    if _MAJOR < 11:
        FP16, INT8, PREFER_PRECISION_CONSTRAINTS = 0, 1, 6
    if (_MAJOR, _MINOR) >= (8, 6):
        VERSION_COMPATIBLE = 7
    if _MAJOR >= 10:
        WEIGHT_STREAMING = 8


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class OnnxParserFlag(enum.Enum):
    NATIVE_INSTANCENORM = 0


class NetworkDefinitionCreationFlag(enum.IntEnum):
    if _MAJOR < 11:
        EXPLICIT_BATCH = 0
    if _MAJOR >= 10:
        STRONGLY_TYPED = 1 if _MAJOR < 11 else 0


_TYPED = 0 if _MAJOR < 10 else 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED


class Logger:
    WARNING = 2

    def __init__(self, severity):
        if "STAND_IN_BROKEN" in os.environ:
            raise IndexError("nobody thought of this\nat all")
        assert severity == self.WARNING


if _MAJOR < 11:

    class IInt8EntropyCalibrator2:
        def __init__(self):
            self.made = True


class _Input:
    name, is_shape_tensor = "x", False


class _Network:
    num_inputs = 1

    def __init__(self, flags):
        self.flags, self.model, self.parser_flags = flags, b"", []

    def get_input(self, index):
        return _Input()


class _ParserError:
    def desc(self):
        return "no importer for this"

    def node(self):
        return 3


class OnnxParser:
    def __init__(self, network, logger):
        self._network, self.num_errors = network, 0

    if (_MAJOR, _MINOR) >= (8, 6):

        def set_flag(self, flag):
            assert isinstance(flag, OnnxParserFlag)
            self._network.parser_flags.append(flag.name)

    def parse_from_file(self, model):
        assert isinstance(model, str)
        while os.environ.get("STAND_IN_WAITS", "nothing") in model and not Path.home().joinpath("go").exists():
            time.sleep(0.02)  # a device that takes its time
        self._network.model = Path(model).read_bytes()
        self.num_errors = int(os.environ.get("STAND_IN_REFUSES", "nothing") in model)
        return not self.num_errors

    def get_error(self, index):
        return _ParserError()


class _Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, input, min, opt, max):
        assert all(isinstance(shape, tuple) for shape in (min, opt, max))
        self.shapes[input] = (min, opt, max)


class _Config:
    default_device_type = DeviceType.GPU
    DLA_core = -1
    if _MAJOR < 11:
        int8_calibrator = None

    if (_MAJOR, _MINOR) >= (8, 6):
        builder_optimization_level = 3

    def __init__(self):
        self.flags, self.profiles, self.calibration_profile = ["TF32"], [], None
        self.workspace, self.timing = None, b""

    def clear_flag(self, flag):
        self.flags.remove(flag.name)

    def set_memory_pool_limit(self, pool, pool_size):
        assert pool is MemoryPoolType.WORKSPACE
        self.workspace = pool_size

    def create_timing_cache(self, serialized_timing_cache):
        return serialized_timing_cache

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        if cache != __version__.encode():  # in place of what a real one holds
            return False
        self.timing = cache
        return True

    def set_flag(self, flag):
        assert isinstance(flag, BuilderFlag)
        self.flags.append(flag.name)

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)

    if _MAJOR < 11:

        def set_calibration_profile(self, profile):
            self.calibration_profile = profile


class Builder:
    num_DLA_cores = 2 if (_MAJOR, _MINOR) < (10, 8) else 0

    def __init__(self, logger):
        assert isinstance(logger, Logger)

    def create_network(self, flags):
        assert _MAJOR >= 10 or flags == 1 << NetworkDefinitionCreationFlag.EXPLICIT_BATCH
        return _Network(flags)

    def create_builder_config(self):
        return _Config()

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        calibrator = getattr(config, "int8_calibrator", None)
        if calibrator is not None:
            assert calibrator.made
            assert "INT8" in config.flags
            assert config.calibration_profile in (None, *config.profiles)
        note = {
            "tensorrt": __version__,
            "typed": bool(network.flags & _TYPED) or _MAJOR >= 11,
            "flags": sorted(config.flags),
            "profiles": [profile.shapes for profile in config.profiles],
            "parser": network.parser_flags,
            "workspace": config.workspace,
            "level": getattr(config, "builder_optimization_level", None),
            "timing": config.timing.decode(),
            "dla": config.DLA_core if config.default_device_type is DeviceType.DLA else None,
            "cache": calibrator.read_calibration_cache().decode() if calibrator is not None else "",
        }
        return b"ftrt" + json.dumps(note).encode() + b"\n" + network.model


class _Context:
    def __init__(self, engine):
        self._engine, self._shapes, self._addresses, self._profile = engine, {}, {}, 0

    def set_optimization_profile_async(self, profile_index, stream_handle):
        assert stream_handle == 7
        self._profile = profile_index
        return profile_index < self._engine.num_optimization_profiles

    def _set_shape(self, name, shape):
        profiles = self._engine.note["profiles"]
        least, _, greatest = (profiles[self._profile] if profiles else {}).get(name, [shape] * 3)
        if not all(a <= b <= c for a, b, c in zip(least, shape, greatest, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def _shape(self, name):
        if name in self._shapes:
            return self._shapes[name]
        zeros = {held: np.zeros(self._shapes[held], self._engine.numpy(held)) for held in self._engine.inputs}
        return self._engine.session.run([name], zeros)[0].shape

    def _run(self, addresses):
        _log("run", self._engine.kind)
        _clock.ahead += self._engine.seconds
        feed = {}
        for name in self._engine.inputs:
            kind, shape = self._engine.numpy(name), self._shapes[name]
            size = int(np.prod(shape)) * kind.itemsize
            feed[name] = np.frombuffer(ctypes.string_at(addresses[name], size), kind).reshape(shape)
        names = [name for name in self._engine.tensors if name not in self._engine.inputs]
        for name, value in zip(names, self._engine.session.run(names, feed), strict=True):
            ctypes.memmove(addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes)
        return True


class _NamedContext(_Context):
    def set_input_shape(self, name, shape):
        return self._set_shape(name, shape)

    def get_tensor_shape(self, name):
        return self._shape(name)

    def set_tensor_address(self, name, memory):
        assert isinstance(memory, int)
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        assert stream_handle == 7
        return self._run(self._addresses)


class _BoundContext(_Context):
    def _name(self, binding):
        profile, place = divmod(binding, len(self._engine.names))
        assert profile == self._profile
        return self._engine.names[place]

    def set_binding_shape(self, binding, shape):
        return self._set_shape(self._name(binding), shape)

    def get_binding_shape(self, binding):
        return self._shape(self._name(binding))

    def execute_async_v2(self, bindings, stream_handle):
        assert stream_handle == 7
        count = len(self._engine.names)
        assert len(bindings) == self._engine.num_bindings
        return self._run(dict(zip(self._engine.names, bindings[self._profile * count :][:count], strict=True)))


class _Engine:
    if _MAJOR < 11:
        device_memory_size = 4096
    else:
        device_memory_size_v2 = 4096
    _budget, _contexts = None, 0

    def __init__(self, note, model):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self.note = note
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.tensors = {v.name: v for v in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.names = list(self.tensors)
        kind = "int8" if b"QuantizeLinear" in model or note["cache"] else "fp16" if b"Cast" in model else "fp32"
        self.kind = kind
        _log("load", kind)
        self.seconds = 0.4 if kind == os.environ.get("STAND_IN_SLOW") else _SECONDS[kind]
        self._streamable = len(model) if "WEIGHT_STREAMING" in note["flags"] else 0

    def __del__(self):
        _log("free", self.kind)

    if _MAJOR >= 10:

        @property
        def streamable_weights_size(self):
            return self._streamable

        def get_weight_streaming_automatic_budget(self):
            assert self._streamable
            return self._streamable // 2

        @property
        def weight_streaming_budget_v2(self):
            return self._budget

        @weight_streaming_budget_v2.setter
        def weight_streaming_budget_v2(self, budget):
            assert not self._contexts, "the budget is set before there is a context"
            assert 0 <= budget <= self._streamable
            self._budget = budget

    def numpy(self, name):
        return np.dtype({"float": "float32"}.get(kind := self.tensors[name].type[7:-1], kind))

    @property
    def num_optimization_profiles(self):
        return max(1, len(self.note["profiles"]))

    def _type(self, name):
        return DataType[_TYPES[self.tensors[name].type]]


class _NamedEngine(_Engine):
    @property
    def num_io_tensors(self):
        return len(self.names)

    def get_tensor_profile_shape(self, name, profile_index):
        return self.note["profiles"][profile_index][name]

    def get_tensor_name(self, index):
        return self.names[index]

    def get_tensor_dtype(self, name):
        return self._type(name)

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def create_execution_context(self):
        assert (self._budget is None) == (not self._streamable), "weights that can be streamed need a budget"
        self._contexts += 1
        return _NamedContext(self)


class _BoundEngine(_Engine):
    @property
    def num_bindings(self):
        return len(self.names) * self.num_optimization_profiles

    def get_profile_shape(self, profile_index, binding):
        return self.note["profiles"][profile_index][self.names[binding]]

    def get_binding_name(self, index):
        return self.names[index]

    def get_binding_dtype(self, index):
        return self._type(self.names[index])

    def binding_is_input(self, index):
        return self.names[index] in self.inputs

    def create_execution_context(self):
        return _BoundContext(self)


class Runtime:
    DLA_core = 0
    if (_MAJOR, _MINOR) >= (8, 6):
        engine_host_code_allowed = False

    def __init__(self, logger):
        assert isinstance(logger, Logger)

    def deserialize_cuda_engine(self, serialized_engine):
        note, _, model = serialized_engine[len(b"ftrt") :].partition(b"\n")
        found = json.loads(note)
        if "VERSION_COMPATIBLE" in found["flags"] and not self.engine_host_code_allowed:
            return None
        if found["tensorrt"] != __version__:
            return None
        assert found["dla"] in (None, self.DLA_core), "else it runs on another core"
        return (_NamedEngine if _NAMED else _BoundEngine)(found, model)
