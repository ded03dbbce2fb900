from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from assets import asset
from small_cnn import write_cnn
from trtcompress_engines.backend import BoundRunner, CompileOptions, backend_for
from trtcompress_engines.backends import onnxruntime as backend_module
from trtcompress_engines.backends.onnxruntime import OnnxRuntimeBackend, open_graph
from trtcompress_engines.measure import time_pair
from trtcompress_engines.parity import ParityMeter
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import CompileError, DataError
from trtcompress_graph.load import read_model
from trtcompress_graph.target import Engine

CPU = resolve_target("cpu")
X = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)


@pytest.fixture
def cnn(tmp_path: Path) -> Path:
    return write_cnn(tmp_path / "cnn.onnx")


def compile_cpu(path: Path, out: Path, threads: int = 0) -> Engine:
    return backend_for(CPU).compile(read_model(path), CPU, "cpu-fp32", CompileOptions(threads=threads), out)


def test_the_engine_is_the_optimized_model_and_the_graph_stays(cnn: Path, tmp_path: Path):
    engine = compile_cpu(cnn, tmp_path / "out", threads=1)
    assert engine.path == tmp_path / "out" / "model.cpu-fp32.optimized.onnx"
    assert engine.graph.path == cnn
    assert (engine.built, engine.reproducible, engine.backend) == (True, True, "onnxruntime")
    assert [file.name for file in engine.path.parent.iterdir()] == [engine.path.name]
    kinds = [node.op_type for node in onnx.load(engine.path).graph.node]
    assert "Relu" not in kinds
    assert engine.details["operators"] == f"7 -> {len(kinds)}"
    assert engine.details["threads"] == "1"


def test_only_a_graph_that_was_not_optimized_is_when_it_is_loaded(cnn: Path, tmp_path: Path):
    """As the reference is: unfused, a file that `validate` gets would take many times as long."""
    engine = compile_cpu(cnn, tmp_path / "out")
    levels = []
    for each in (engine, replace(engine, path=cnn)):
        with backend_for(CPU).open(each) as runner:
            levels.append(runner._runner.sess.get_session_options().graph_optimization_level)
    assert levels == [ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL]


def test_the_engine_answers_as_the_graph_does(cnn: Path, tmp_path: Path):
    engine = compile_cpu(cnn, tmp_path / "out")
    expected = ReferenceEvaluator(str(cnn)).run(None, {"x": X})[0]
    with backend_for(CPU).open(engine, threads=1) as runner:
        assert runner.infer({"x": X})["logits"] == pytest.approx(expected, abs=1e-4)


def test_the_real_reader_keeps_its_answers_and_its_bytes_from_process_to_process(tmp_path: Path):
    model = asset("rapidocr-onnxruntime", "rec_infer.onnx")
    engine = compile_cpu(model, tmp_path / "here")
    assert "FusedMatMul" in engine.details["fused"]
    x = {"x": np.random.default_rng(0).normal(size=(2, 3, 48, 96)).astype(np.float32)}
    meter = ParityMeter()
    with open_graph(model) as reference, backend_for(CPU).open(engine) as runner:
        meter.add(reference.infer(x), runner.infer(x))
    assert meter.result()[0].cosine == pytest.approx(1.0, abs=1e-6)
    code = (
        "import sys; from pathlib import Path; from trtcompress_engines.backend import *;"
        "from trtcompress_engines.targets import resolve_target as r; from trtcompress_graph.load import read_model;"
        "t = r('cpu'); m = read_model(Path(sys.argv[1]));"
        "print(backend_for(t).compile(m, t, 'cpu-fp32', CompileOptions(), Path(sys.argv[2])).digest)"
    )
    command = [sys.executable, "-c", code, str(model), str(tmp_path / "there")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == engine.digest


def saturating_conv(path: Path) -> Path:
    """A Q/DQ convolution whose sums of two products leave 16 bits: 127 * 127 * 2 with the +128 of u8 kernels."""
    codes = np.full((8, 16, 1, 1), 127, np.int8)
    one, zero = np.float32(1), np.int8(0)
    constants = {"w": codes, "one": one, "zero": zero}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "one", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "one", "zero"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "big", "zero"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "big", "zero"], ["y"]),
    ]
    constants["big"] = np.float32(4096)
    graph = helper.make_graph(
        nodes,
        "saturate",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 4, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_int8_nodes_are_counted(cnn: Path, tmp_path: Path):
    assert compile_cpu(saturating_conv(tmp_path / "conv.onnx"), tmp_path / "out").details["int8_nodes"] == "1"
    assert compile_cpu(cnn, tmp_path / "float").details["int8_nodes"] == "0"


def test_emulation_computes_what_is_written_on_any_cpu(tmp_path: Path):
    path = saturating_conv(tmp_path / "conv.onnx")
    x = np.full((1, 16, 4, 4), 127, np.float32)
    with open_graph(path, emulate=True) as runner:
        emulated = runner.infer({"x": x})["y"]
    assert emulated == pytest.approx(np.full((1, 8, 4, 4), 63 * 4096.0))  # 16 * 127 * 127 / 4096 = 63.0 steps


def test_external_weights_stay_external(cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backend_module, "EXTERNAL_ABOVE", 0)
    monkeypatch.setattr(backend_module, "EXTERNAL_LEAST", 64)
    engine = compile_cpu(cnn, tmp_path / "out")
    assert {file.name for file in engine.path.parent.iterdir()} == {engine.path.name, engine.path.name + ".data"}
    with open_graph(cnn) as reference, backend_for(CPU).open(engine) as runner:
        assert np.allclose(reference.infer({"x": X})["logits"], runner.infer({"x": X})["logits"], atol=1e-5)


def test_a_runner_can_be_bound_for_timing(cnn: Path, tmp_path: Path):
    engine = compile_cpu(cnn, tmp_path / "out")
    with open_graph(cnn) as reference, backend_for(CPU).open(engine) as runner:
        assert isinstance(runner, BoundRunner)
        speeds = time_pair(runner, reference, {1: {"x": X[:1]}, 4: {"x": X}}, seconds=0.1)
    assert [speed.engine.batch for speed in speeds] == [1, 4]
    assert all(0 < speed.engine.p50 <= speed.engine.p99 for speed in speeds)


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"y": X}, "the inputs are x; given: y"),
        ({}, "given: none"),
        ({"x": X.astype(np.float64)}, "data type"),
        ({"x": X[:, :2]}, "invalid dimensions"),
    ],
)
def test_a_feed_that_does_not_fit(cnn: Path, feed: dict[str, np.ndarray], message: str):
    with open_graph(cnn) as runner:
        with pytest.raises(DataError, match=message):
            runner.infer(feed)
        with pytest.raises(DataError, match=message):
            runner.bind(feed)


def test_a_graph_that_is_refused_names_its_node(tmp_path: Path):
    graph = helper.make_graph(
        [helper.make_node("BitShift", ["x", "x"], ["y"], name="the_shift", direction="LEFT")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    path = tmp_path / "bad.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(CompileError, match="ONNX Runtime refuses the graph") as caught, open_graph(path):
        pass
    assert caught.value.where == f"{path}: node 'the_shift'"
    assert "ONNXRuntimeError" not in str(caught.value)


def test_nothing_is_missing():
    assert OnnxRuntimeBackend().missing() == ""


def test_sums_and_norms_are_not_fused_into_a_slower_kernel(tmp_path: Path):
    weights = {name: np.full(8, value, np.float32) for name, value in (("ones", 1), ("zeros", 0))}
    nodes = [
        helper.make_node("Add", ["x", "y"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "ones", "zeros"], ["out"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8]) for name in "xy"]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4, 8])]
    stored = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "norm", inputs, outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "n.onnx")
    engine = compile_cpu(tmp_path / "n.onnx", tmp_path / "out")
    assert [node.op_type for node in onnx.load(engine.path).graph.node] == ["Add", "LayerNormalization"]
