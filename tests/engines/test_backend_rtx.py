"""Real builds by TensorRT for RTX, with no GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from small_cnn import write_cnn
from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_engines.backends import trt_load, trt_process
from trtcompress_engines.backends.trt_worker import Request
from trtcompress_engines.gpu.present import gpu_names
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import CompileError
from trtcompress_graph.load import read_model
from trtcompress_graph.simplify import simplify
from trtcompress_graph.target import Engine

PROFILES = {"x": ((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))}


def build(path: Path, target: str, profiles: dict[str, tuple[tuple[int, ...], ...]] = PROFILES) -> Engine:
    card = resolve_target(target)
    return backend_for(card).compile(
        read_model(path), card, "trt", CompileOptions(profiles=profiles), path.parent / "out"
    )


def test_one_int8_plan_for_several_cards(tmp_path: Path):
    engine = build(write_cnn(tmp_path / "int8.onnx", int8=True, fp16=True), "rtx-3090+rtx-4090+rtx-5090")
    assert engine.path.stat().st_size > 10_000
    assert {file.name for file in engine.path.parent.iterdir()} == {"model.trt.plan", "reproduce.py", "reproduce.sh"}
    assert (engine.built, engine.reproducible, engine.backend) == (True, False, "tensorrt_rtx")
    assert engine.details["compute_capabilities"] == "SM86, SM89, SM120"
    assert engine.details["int8_nodes"] == "2 of 3 convolutions and products"
    assert engine.details["int8_alone"] == "SM86 2, SM89 2, SM120 2"
    assert engine.details["tensorrt_rtx"].startswith("1.")


def test_one_card_and_graphs_without_int8_are_built_once(tmp_path: Path):
    assert "int8_alone" not in build(write_cnn(tmp_path / "half.onnx", fp16=True), "rtx-3090+rtx-4090").details
    assert "int8_alone" not in build(write_cnn(tmp_path / "int8.onnx", int8=True, fp16=True), "rtx-4090").details


def test_a_file_that_costs_a_card_its_int8_is_refused(tmp_path: Path):
    """Turing has no INT8 kernels in TensorRT for RTX; beside it the others lose theirs, and the log says no word."""
    path, ada = write_cnn(tmp_path / "int8.onnx", int8=True, fp16=True), resolve_target("rtx-4090")
    both = replace(ada, name="rtx-2080-ti+rtx-4090", compute_capabilities=((7, 5), (8, 9)))
    lost = r"in one file .* 0 convolutions and products run in INT8: SM89 alone has 2"
    with pytest.raises(CompileError, match=lost) as caught:
        backend_for(both).compile(read_model(path), both, "trt", CompileOptions(profiles=PROFILES), tmp_path / "out")
    assert caught.value.hint == "build a file for each: --target rtx-2080-ti --target rtx-4090"
    assert list((tmp_path / "out").iterdir()) == []


def test_turing_takes_fp16_and_refuses_a_product_in_fp32_by_name(tmp_path: Path):
    engine = build(write_cnn(tmp_path / "half.onnx", fp16=True), "rtx-2080-ti")
    assert engine.details["compute_capabilities"] == "SM75"
    assert engine.details["int8_nodes"].startswith("0 of 3")
    float32 = write_cnn(tmp_path / "float.onnx")
    with pytest.raises(CompileError, match="FP32 GEMM is not supported") as caught:
        build(float32, "rtx-2080-ti")
    assert caught.value.where == f"{float32}: node 'fc'"
    assert caught.value.exit_code == 4


def test_a_node_that_the_parser_refuses_is_named(tmp_path: Path):
    path = write_cnn(tmp_path / "bias.onnx", int8=True, quantized_bias=True)
    with pytest.raises(CompileError, match="input has type Int32") as caught:
        build(path, "rtx-3090")
    assert caught.value.where == f"{path}: node 'conv0.bias.dequantize'"
    assert "cudaError" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_operators_that_are_not_supported_are_named_all_at_once(tmp_path: Path):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])
    nodes = [helper.make_node("Det", [name], [f"{name}.det"], name=f"det_{name}") for name in ("x", "y")]
    relu = helper.make_node("Relu", ["x"], ["y"], name="relu")
    outputs = [helper.make_tensor_value_info(f"{name}.det", TensorProto.FLOAT, []) for name in ("x", "y")]
    graph = helper.make_graph([relu, *nodes], "g", [x], outputs)
    path = tmp_path / "det.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(CompileError, match=r"the operator Det is not supported; 1 more: det_y \(Det\)") as caught:
        build(path, "rtx-4090", {})
    assert caught.value.where == f"{path}: node 'det_x'"


def test_a_dynamic_input_needs_a_profile(tmp_path: Path):
    path = write_cnn(tmp_path / "cnn.onnx")
    with pytest.raises(CompileError, match="the dynamic axis 'batch' has no range") as caught:
        build(path, "rtx-3090", {})
    assert "input 'x'" in caught.value.where
    assert "--set 'model.inputs.x.batch=[1, 8, 16]'" in caught.value.hint


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (((1, 3, 16), (4, 3, 16), (8, 3, 16)), "does not fit"),
        (((1, 4, 16, 16), (4, 4, 16, 16), (8, 4, 16, 16)), "does not fit"),
        (((4, 3, 16, 16), (1, 3, 16, 16), (8, 3, 16, 16)), "do not rise"),
        (((0, 3, 16, 16), (1, 3, 16, 16), (8, 3, 16, 16)), "do not rise"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused_before_anything_is_built(tmp_path: Path, profile, message: str):
    with pytest.raises(CompileError, match=message):
        build(write_cnn(tmp_path / "cnn.onnx"), "rtx-3090", {"x": profile})


def test_a_static_graph_needs_no_profile(tmp_path: Path):
    assert build(write_cnn(tmp_path / "cnn.onnx", batch=2), "rtx-4090", {}).built


def test_weights_beside_the_graph_are_found(tmp_path: Path):
    path = write_cnn(tmp_path / "cnn.onnx", batch=1)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="cnn.onnx.data", size_threshold=64)
    assert (tmp_path / "cnn.onnx.data").exists()
    assert build(path, "rtx-4090", {}).built


@pytest.mark.skipif(bool(gpu_names()), reason="there is a GPU, on which it may run")
def test_a_plan_does_not_run_here(tmp_path: Path):
    engine = build(write_cnn(tmp_path / "cnn.onnx", batch=1, fp16=True), "rtx-4090", {})
    with pytest.raises(CompileError, match="cannot run here"):
        backend_for(resolve_target("rtx-4090")).open(engine)


def test_without_tensorrt_for_rtx_it_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trt_load, "find_spec", lambda name: None)
    assert "pip install '.[rtx]'" in trt_load.missing_rtx()
    with pytest.raises(CompileError) as caught:
        build(write_cnn(tmp_path / "cnn.onnx"), "rtx-4090")
    assert "pip install '.[rtx]'" in caught.value.hint


def test_a_worker_that_dies_ends_in_an_error_and_not_in_silence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trt_process, "WORKER", "no_such_module_at_all")
    with pytest.raises(CompileError, match="No module named no_such_module_at_all"):
        trt_process.probe("rtx")


def test_probe_tells_version_and_compute_capabilities():
    result = trt_process.probe("rtx")
    assert {"SM75", "SM86", "SM89", "SM120"} <= set(result.compute_capabilities)
    assert Request("rtx").onnx == ""


@pytest.mark.parametrize(("inside", "message"), [(True, "no If whose branches give"), (False, "with equal ranks")])
def test_an_if_whose_branches_differ_in_rank_is_named(tmp_path: Path, inside: bool, message: str):
    """As exporters write `x.squeeze(-1)`; the builder alone knows the ranks where the axis comes from outside."""
    last = [helper.make_tensor("last", TensorProto.INT64, [1], [1])]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("s", "i")]
    then = helper.make_graph(
        [helper.make_node("Squeeze", ["x", "last"], ["s"], name="squeeze")], "t", [], sides[:1], last * inside
    )
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["i"], name="same")], "e", [], sides[1:])
    nodes = [
        helper.make_node("If", ["k"], ["v"], name="maybe", then_branch=then, else_branch=other),
        helper.make_node("ReduceSum", ["v"], ["y"], name="sum", keepdims=0),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 1])
    k = helper.make_tensor_value_info("k", TensorProto.BOOL, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    graph = helper.make_graph(nodes, "g", [x, k], [y], last * (not inside))
    path = tmp_path / "if.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(CompileError, match=message) as caught:
        build(path, "rtx-4090", {})
    assert caught.value.where == f"{path}: node 'maybe'"
    assert inside is ("--fix INPUT=VALUE" in caught.value.hint)
    assert build(simplify(read_model(path), tmp_path / "fixed.onnx", fix={"k": True}).path, "rtx-4090", {}).built
