from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from small_cnn import write_cnn
from trtcompress_engines.backend import CompileOptions, backend_for, not_here
from trtcompress_engines.backends import tensorrt as backend_module
from trtcompress_engines.backends import trt_load
from trtcompress_engines.backends.tensorrt import nearest
from trtcompress_engines.backends.trt_recipe import make_recipe
from trtcompress_engines.builder_flags import builder_flags
from trtcompress_engines.parsed_graphs import OLDER, WIDENED
from trtcompress_engines.targets import resolve_target
from trtcompress_engines.tensorrt_options import TensorRTOptions
from trtcompress_engines.tensorrt_release import Release
from trtcompress_graph.errors import CompileError, UsageError
from trtcompress_graph.load import read_model
from trtcompress_graph.target import Engine

OPTIONS = CompileOptions(profiles={"x": ((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))})


def compile_for(path: Path, name: str) -> Engine:
    target = resolve_target(name)
    return backend_for(target).compile(read_model(path), target, "trt-int8", OPTIONS, path.parent / "out")


@pytest.mark.parametrize(("name", "checked_as"), [("h100", "SM89"), ("t4", "SM80"), ("orin", "SM86")])
def test_a_graph_for_a_card_that_is_not_here_is_checked_and_not_built(tmp_path: Path, name: str, checked_as: str):
    path = write_cnn(tmp_path / "int8.onnx", int8=True)
    engine = compile_for(path, name)
    assert not engine.built
    assert engine.path == path
    assert engine.digest == read_model(path).digest
    assert f"for {checked_as}; in INT8: 2 of 3" in engine.details["checked"]
    assert "--onnx=int8.onnx" in engine.details["how_to_build"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"reproduce.py", "reproduce.sh"}


def test_a_graph_that_the_parser_refuses_is_refused(tmp_path: Path):
    with pytest.raises(CompileError) as caught:
        compile_for(write_cnn(tmp_path / "bias.onnx", int8=True, quantized_bias=True), "l4")
    assert "node 'conv0.bias.dequantize'" in caught.value.where


def test_without_tensorrt_for_rtx_the_engine_says_that_nothing_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(backend_module, "missing_rtx", lambda: "TensorRT for RTX is not installed: pip install it")
    engine = compile_for(write_cnn(tmp_path / "int8.onnx", int8=True), "l4")
    assert not engine.built
    assert engine.details["checked"] == "no: TensorRT for RTX is not installed: pip install it"


@pytest.mark.parametrize(
    ("capability", "known"),
    [((5, 3), (8, 0)), ((7, 5), (8, 0)), ((8, 7), (8, 6)), ((9, 0), (8, 9)), ((11, 0), (8, 9)), ((12, 1), (12, 1))],
)
def test_the_nearest_compute_capability(capability: tuple[int, int], known: tuple[int, int]):
    assert nearest(capability) == known


def test_the_command_fits_the_tensorrt_of_the_device(tmp_path: Path):
    path = write_cnn(tmp_path / "m.onnx", int8=True, fp16=True)
    for name, onnx_file, flags in (
        ("jetson-agx-orin", "m.onnx", "--stronglyTyped"),
        ("jetson-xavier-nx", OLDER, "--fp16 --int8"),
    ):
        command = compile_for(path, name).details["how_to_build"]
        assert f"trtexec --onnx={onnx_file} --saveEngine=m.plan {flags}" in command
        assert "--minShapes=x:1x3x16x16 --optShapes=x:4x3x16x16 --maxShapes=x:8x3x16x16" in command
        assert "on the device" in command
    floating = write_cnn(tmp_path / "f.onnx", fp16=True)
    assert "--fp16 --noTF32" in compile_for(floating, "jetson-nano").details["how_to_build"]


def test_an_engine_for_another_machine_does_not_run_here(tmp_path: Path):
    engine = compile_for(write_cnn(tmp_path / "m.onnx"), "l4")
    with pytest.raises(CompileError, match="cannot run here"):
        backend_for(resolve_target("l4")).open(engine)


@pytest.mark.parametrize("fp16", [False, True])
def test_a_release_whose_parser_takes_no_such_opset_is_given_an_older_graph(tmp_path: Path, fp16: bool):
    """A data-centre card with TensorRT 8.6, and a graph of opset 20."""
    path = write_cnn(tmp_path / "int8.onnx", int8=True, fp16=fp16)
    assert onnx.load(path).opset_import[0].version == 20
    options = replace(OPTIONS, tensorrt=TensorRTOptions(version="8.6"))
    target = resolve_target("a100")
    engine = backend_for(target).compile(read_model(path), target, "trt-int8", options, tmp_path / "out")
    older = tmp_path / "out" / OLDER
    assert engine.graph.path == path
    assert engine.details["built_of"].startswith("opset 17, for TensorRT 8.6.2")
    assert (WIDENED in engine.details["built_of"]) is fp16  # before opset 19 a scale is float32
    flags = "--fp16 --int8" if fp16 else "--int8"
    assert f"--onnx={OLDER} --saveEngine=int8.plan {flags} " in engine.details["how_to_build"]
    assert f"  {OLDER}'" in (tmp_path / "out/reproduce.sh").read_text()
    assert onnx.load(older).opset_import[0].version == 17
    x = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float16 if fp16 else np.float32)
    (wanted,), (found,) = (
        ort.InferenceSession(str(file)).run(None, {"x": x.astype(kind)})
        for file, kind in ((path, x.dtype), (older, np.float32))
    )
    np.testing.assert_allclose(found, wanted, atol=2e-2 if fp16 else 1e-5)
    newer = replace(OPTIONS, tensorrt=TensorRTOptions(version="10.3"))
    same = backend_for(target).compile(read_model(path), target, "trt-int8", newer, tmp_path / "newer")
    assert "built_of" not in same.details
    assert not (tmp_path / "newer" / OLDER).exists()


@pytest.mark.parametrize(
    ("made", "allowed"),
    [
        ({}, ()),
        ({"fp16": True}, ("FP16",)),
        ({"int8": True}, ("INT8",)),
        ({"int8": True, "fp16": True}, ("FP16", "INT8")),
    ],
)
def test_before_10_flags_allow_the_types_of_the_graph_and_no_others(
    tmp_path: Path, made: dict[str, bool], allowed: tuple[str, ...]
):
    """Else a float32 model, such as the one that engines are timed against, would be computed in FP16."""
    graph = read_model(write_cnn(tmp_path / "model.onnx", **made))
    for version in ("8.4.1", "8.6.2"):
        recipe = make_recipe(Release("classic", version), graph, "model.plan", TensorRTOptions(), [])
        assert recipe.flags == allowed == builder_flags(graph), "as in a kit"
    on_dla = make_recipe(Release("classic", "8.6.2"), graph, "model.plan", TensorRTOptions(dla=0), [])
    assert {"FP16", *allowed} <= set(on_dla.flags)
    assert not make_recipe(Release("classic", "10.3.0"), graph, "model.plan", TensorRTOptions(), []).flags


def test_an_operator_that_its_parser_does_not_have_is_named(tmp_path: Path):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Hardmax", ["x"], ["y"], name="peak")], "g", values[:1], values[1:])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    target, shapes = resolve_target("a100"), ((1, 8), (4, 8), (8, 8))
    options = CompileOptions(profiles={"x": shapes}, tensorrt=TensorRTOptions(version="8.6"))
    with pytest.raises(CompileError, match=r"the parser of TensorRT 8.6.2 takes opset 17 at the most: Hardmax") as told:
        backend_for(target).compile(read_model(path), target, "trt-fp32", options, tmp_path / "out")
    assert told.value.where == f"{path}: node 'peak'"
    assert "tensorrt.version" in told.value.hint
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def an_a10_is_here(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backend_module, "missing_classic", lambda: "")
    monkeypatch.setattr(backend_module, "gpu_count", lambda: 1)
    monkeypatch.setattr(trt_load, "gpu_names", lambda: ["NVIDIA A10"])
    monkeypatch.setattr(trt_load, "gpu_capabilities", lambda: [(8, 6)])
    real = backend_module.release_here
    monkeypatch.setattr(
        backend_module, "release_here", lambda of: Release(of, "10.13.0") if of == "classic" else real(of)
    )


def test_nothing_is_built_for_a_card_on_another_one(tmp_path: Path, an_a10_is_here: None):
    engine = compile_for(write_cnn(tmp_path / "int8.onnx", int8=True), "h100")
    assert not engine.built
    told = "the GPU here is NVIDIA A10 (SM86), and 'h100' is SM90: build on a machine that has it"
    assert engine.details["not_built"] == told
    assert not_here(resolve_target("h100")) == told
    assert not_here(resolve_target("a10")) == ""
    assert not_here(resolve_target("jetson-agx-orin")) == "the device itself builds it"


def test_another_tensorrt_than_the_one_that_is_asked_for_builds_nothing(tmp_path: Path, an_a10_is_here: None):
    path, target = write_cnn(tmp_path / "int8.onnx", int8=True), resolve_target("a10")
    options = replace(OPTIONS, tensorrt=TensorRTOptions(version="8.6"))
    with pytest.raises(UsageError, match=r"TensorRT 10\.13\.0 is installed here, and 8\.6 was asked for"):
        backend_for(target).compile(read_model(path), target, "trt-int8", options, tmp_path / "out")
    assert not (tmp_path / "out").exists()
