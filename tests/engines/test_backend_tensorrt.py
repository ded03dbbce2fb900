from __future__ import annotations

from pathlib import Path

import pytest

from small_cnn import write_cnn
from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_engines.backends import tensorrt as backend_module
from trtcompress_engines.backends.tensorrt import nearest
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import CompileError
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
    for name, flags in (("jetson-agx-orin", "--stronglyTyped"), ("jetson-xavier-nx", "--fp16 --int8")):
        command = compile_for(path, name).details["how_to_build"]
        assert f"trtexec --onnx=m.onnx --saveEngine=m.plan {flags}" in command
        assert "--minShapes=x:1x3x16x16 --optShapes=x:4x3x16x16 --maxShapes=x:8x3x16x16" in command
        assert "on the device" in command
    floating = write_cnn(tmp_path / "f.onnx", fp16=True)
    assert "--fp16 --noTF32" in compile_for(floating, "jetson-nano").details["how_to_build"]


def test_an_engine_for_another_machine_does_not_run_here(tmp_path: Path):
    engine = compile_for(write_cnn(tmp_path / "m.onnx"), "l4")
    with pytest.raises(CompileError, match="cannot run here"):
        backend_for(resolve_target("l4")).open(engine)
