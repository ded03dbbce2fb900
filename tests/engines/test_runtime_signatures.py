"""What runs an engine calls TensorRT as the bindings of each release take it: a kit on its device, and `validate` here.

The runtimes run over doubles of the releases, which refuse what the bindings refuse (test_trt_signatures.py says what a
double is), and every attribute that stands in their source is looked up in the bindings, whether it was reached or not.
"""

from __future__ import annotations

import ast
import ctypes
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import trt_double
from gpu_double import DeviceAllocation, Gpu, Stream, plan_of
from small_cnn import write_cnn
from trtcompress_engines.gpu import placed, runner, tensors
from trtcompress_engines.kit.device import kit, streaming
from trtcompress_engines.kit.device import trt as api
from trtcompress_engines.scripts import refit
from trtcompress_engines.tensorrt_release import Release

RELEASES = trt_double.releases()
PROFILES = (
    {"x": [[1, 3, 16, 16], [1, 3, 16, 16], [2, 3, 16, 16]]},
    {"x": [[1, 3, 16, 16], [4, 3, 16, 16], [8, 3, 16, 16]]},
)
BY_NAME = [(release, True) for release in RELEASES]
BY_NUMBER = [(release, False) for release in RELEASES if Release("classic", release).number < (10, 0)]
"""The calls of 8.4 and before, which 8.6 has too."""


class Memory:
    """What kit/device/buffers.py has, in memory of the host."""

    def __init__(self, gpu: Gpu) -> None:
        gpu._push(1)
        self._stream = Stream(gpu)
        self.stream = self._stream.handle

    def allocate(self, size: int) -> DeviceAllocation:
        return DeviceAllocation(max(size, 1))

    def upload(self, buffer: DeviceAllocation, array: Any) -> None:
        ctypes.memmove(int(buffer), array.ctypes.data, array.nbytes)

    def download(self, array: Any, buffer: DeviceAllocation) -> None:
        ctypes.memmove(array.ctypes.data, int(buffer), array.nbytes)

    def synchronize(self) -> None:
        self._stream.synchronize()


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cnn(tmp_path_factory.mktemp("net") / "net.onnx")


def images(count: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(count).normal(size=(count, 3, 16, 16)).astype(np.float32)}


def loaded(gpu: Gpu, plan: Path, *budget: str, named: bool = True) -> api.TensorRTEngine:
    if not named:
        del gpu.trt.ICudaEngine.num_io_tensors
    return api.TensorRTEngine(gpu.trt, plan.read_bytes(), Memory(gpu), *budget)  # type: ignore[arg-type]


@pytest.mark.parametrize(("release", "named"), [*BY_NAME, *BY_NUMBER])
def test_a_kit_runs_an_engine_by_the_calls_of_its_release(onnx: Path, tmp_path: Path, release: str, named: bool):
    gpu = Gpu(release)
    engine = loaded(gpu, plan_of(onnx, tmp_path / "two.plan", *PROFILES, carries_code=True), named=named)
    for count in (1, 8, 2, 4):
        expected = ort.InferenceSession(str(onnx)).run(None, images(count))[0]
        np.testing.assert_allclose(engine.infer(images(count))["logits"], expected, rtol=1e-4, atol=1e-5)
    assert engine.activation_bytes is not None
    called = {name for owner, name, _ in gpu.trt.calls if owner == "IExecutionContext"}
    assert ("execute_async_v3" if named else "execute_async_v2") in called
    with pytest.raises(kit.KitError, match="takes no input 'x'"):
        engine.infer(images(9))


@pytest.mark.parametrize("release", RELEASES)
def test_a_kit_sets_a_budget_of_streamed_weights(onnx: Path, tmp_path: Path, release: str):
    gpu = Gpu(release)
    engine = loaded(gpu, plan_of(onnx, tmp_path / "streamed.plan", *PROFILES, streamable=1000))
    names = [name for _, name, _ in gpu.trt.calls]
    told = [name for name in names[: names.index("create_execution_context")] if name.startswith("weight_streaming")]
    key = "weight_streaming_budget" if release.startswith("10.0.") else "weight_streaming_budget_v2"
    assert told == ([] if release.startswith("8.") else [key])
    assert engine.streamed_budget == (250 if key in told and key.endswith("v2") else None)


@pytest.mark.parametrize(("budget", "taken"), [("30%", 300), ("128", 128), ("0", 0), ("100%", 1000)])
def test_a_kit_sets_the_budget_of_the_config(onnx: Path, tmp_path: Path, budget: str, taken: int):
    plan = plan_of(onnx, tmp_path / "streamed.plan", *PROFILES, streamable=1000)
    for release in (name for name in RELEASES if not name.startswith(("8.", "10.0."))):
        engine = loaded(Gpu(release), plan, budget)
        assert engine.streamed_budget == taken, release
        expected = ort.InferenceSession(str(onnx)).run(None, images(2))[0]
        np.testing.assert_allclose(engine.infer(images(2))["logits"], expected, rtol=1e-4, atol=1e-5)


def test_a_budget_that_tensorrt_does_not_take_is_told_by_the_kit(onnx: Path, tmp_path: Path):
    gpu = Gpu(max(name for name in RELEASES if name.startswith("10.")))
    plan = plan_of(onnx, tmp_path / "streamed.plan", *PROFILES, streamable=1000)
    gpu.trt.ICudaEngine.weight_streaming_budget_v2 = property(lambda own: 1000, lambda own, value: None)
    with pytest.raises(
        kit.KitError, match=r"takes no budget of 300 bytes .* tensorrt\.weight_streaming_budget"
    ) as caught:
        loaded(gpu, plan, "30%")
    assert caught.value.code == 4


@pytest.mark.parametrize("release", [name for name in RELEASES if not Release("classic", name).lacks("dla")])
def test_a_kit_loads_an_engine_on_the_core_of_the_dla_that_it_was_built_for(onnx: Path, tmp_path: Path, release: str):
    gpu, plan = Gpu(release), plan_of(onnx, tmp_path / "dla.plan", *PROFILES)
    api.TensorRTEngine(gpu.trt, plan.read_bytes(), Memory(gpu), dla=1)  # type: ignore[arg-type]
    calls = [(owner, name) for owner, name, _ in gpu.trt.calls]
    assert ("Runtime", "DLA_core", (1,)) in gpu.trt.calls
    assert calls.index(("Runtime", "DLA_core")) < calls.index(("Runtime", "deserialize_cuda_engine"))


@pytest.mark.parametrize("release", RELEASES)
def test_an_engine_of_another_gpu_is_refused(onnx: Path, tmp_path: Path, release: str):
    with pytest.raises(kit.KitError, match="cannot load this engine") as caught:
        loaded(Gpu(release), plan_of(onnx, tmp_path / "other.plan", *PROFILES, gpu="A100"))
    assert caught.value.code == kit.OTHER_ENGINE


OWNERS = {"trt": "", "engine": "ICudaEngine", "context": "IExecutionContext", "runtime": "Runtime"}
OWNERS |= {"refitter": "Refitter", "parser": "OnnxParserRefitter", "config": "ISerializationConfig"}
SOURCES = (api, streaming, runner, placed, tensors, refit)
SINCE: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    **dict.fromkeys(("num_bindings", "get_binding_name", "get_binding_dtype"), ((8, 0), (10, 0))),
    **dict.fromkeys(("binding_is_input", "get_profile_shape"), ((8, 0), (10, 0))),
    **dict.fromkeys(("set_binding_shape", "get_binding_shape", "execute_async_v2"), ((8, 0), (10, 0))),
    **dict.fromkeys(("weight_streaming_budget", "minimum_weight_streaming_budget"), ((10, 0), (11, 0))),
    **dict.fromkeys(("weight_streaming_budget_v2", "get_weight_streaming_automatic_budget"), ((10, 1), (99, 0))),
    **dict.fromkeys(("OnnxParserRefitter", "refit_from_file", "num_errors", "get_error"), ((10, 0), (99, 0))),
    **dict.fromkeys(("create_serialization_config", "serialize_with_config"), ((10, 0), (99, 0))),
    **dict.fromkeys(("SerializationFlag", "ISerializationConfig"), ((10, 0), (99, 0))),
}
"""First release that has what not every one has, and the first that has it no more: the source asks before, or says."""


def uses(source: ModuleType) -> Iterator[tuple[str, str]]:
    """Class and member of every attribute that is taken of an object of TensorRT; the class is empty for the module."""
    for node in ast.walk(ast.parse(inspect.getsource(source))):
        if not isinstance(node, ast.Attribute):
            continue
        holder = node.value
        name = holder.attr if isinstance(holder, ast.Attribute) else holder.id if isinstance(holder, ast.Name) else ""
        owner = name.lstrip("_")
        if owner in OWNERS and not node.attr.startswith("__"):
            yield OWNERS[owner], node.attr
        elif name[:1].isupper() and isinstance(holder, ast.Attribute) and ast.unparse(holder.value).endswith("trt"):
            yield name, node.attr


USED = sorted({use for source in SOURCES for use in uses(source)})


def test_the_uses_that_are_looked_up_are_those_of_the_source():
    assert {name for name, _ in USED} == {
        *OWNERS.values(),
        *("Logger", "ILogger", "TensorIOMode", "TensorLocation", "SerializationFlag"),
    }
    assert {("ICudaEngine", "get_tensor_name"), ("IExecutionContext", "execute_async_v3"), ("", "Runtime")} <= set(USED)
    assert len(USED) > 45
    assert SINCE.keys() <= {name for use in USED for name in use}


@pytest.mark.parametrize("release", RELEASES)
def test_every_attribute_is_one_that_the_bindings_have(release: str):
    trt = trt_double.double(trt_double.read(release))
    number = Release("classic", release).number
    for owner, member in USED:
        if owner and not hasattr(trt, owner):
            assert SINCE[owner][0] > number
            continue
        since, before = SINCE.get(member, ((8, 0), (99, 0)))
        assert hasattr(getattr(trt, owner) if owner else trt, member) is (since <= number < before), (owner, member)
