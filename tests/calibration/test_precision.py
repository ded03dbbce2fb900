"""The precision of every node, and the reasons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from float_graphs import IMAGE, Net, cosine, images, measured, residual_net, run
from int8_kernels import kernels
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.sensitivity import sensitivity
from trtcompress_engines.encodings import encodings
from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.errors import ConfigError
from trtcompress_graph.load import read_model
from trtcompress_graph.ranges import Ranges

CPU = replace(encodings()["cpu-int8"], product_weights=0)  # the networks here are small
TRT = encodings()["trt-int8"]


def by_name(plan: PrecisionPlan) -> dict[str, tuple[str, str]]:
    return {p.node: (p.precision, p.reason) for p in plan.nodes}


def test_every_node_is_there_and_whole_int8_needs_no_reason(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    plan = plan_precision(model, measured(model, images(2)), CPU)
    assert plan.encoding == "cpu-int8"
    assert [p.node for p in plan.nodes] == [node.name for node in onnx.load(model.path).graph.node]
    assert {(p.precision, p.reason) for p in plan.nodes} == {("int8", "")}


def test_tensorrt_says_what_is_absorbed_and_what_has_no_kernel(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    plan = by_name(plan_precision(model, measured(model, images(2)), TRT))
    assert plan["Conv:a1"] == plan["MaxPool:pool"] == plan["Gemm:logits"] == ("int8", "")
    assert plan["Add:a_add"] == ("float16", "a convolution adds it where it writes its result")
    assert plan["Relu:a_relu"] == ("float16", "no INT8 kernel for Relu")


def test_skipped_by_pattern(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    plan = by_name(plan_precision(model, measured(model, images(2)), CPU, skip=["Conv:a?", "Gemm:*"]))
    for node in ("Conv:a1", "Conv:a2", "Gemm:logits"):
        assert plan[node] == ("float32", "skipped")
    assert plan["Conv:b1"] == ("int8", "")
    assert plan["Add:a_add"] == ("float32", "its inputs or its result are not INT8, so that INT8 would only cost")


def test_a_pattern_that_matches_nothing_proposes_names(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match="no node is called 'Conv:stm'") as caught:
        plan_precision(model, measured(model, images(2)), CPU, skip=["Conv:stm"])
    assert "Conv:stem" in caught.value.hint
    assert caught.value.exit_code == 2


def test_reasons_of_what_multiplies(tmp_path: Path) -> None:
    net = Net()
    flat = net.node("Flatten", ["x"], "flat")
    a = net.product("MatMul", flat, "a", 768, 8)
    net.node("MatMul", [a, net.node("Transpose", [a], "at")], "both")
    scaled = [a, net.constant("s.weight", np.ones((8, 4))), net.constant("s.bias", np.ones(4))]
    net.node("Gemm", scaled, "scaled", alpha=0.5)
    broken = net.constant("n.weight", np.full((8, 4), 1e-3))
    net.constants["n.weight"][0, 0] = np.nan
    net.node("MatMul", [net.constant("left", np.ones((3, 2))), net.constant("l", np.ones((2, 3)))], "constant")
    net.node("Gemm", [a, broken, net.constant("n.bias", np.ones((1, 4)))], "broken")
    shapes = {"both": ("batch", "batch"), "scaled": ("batch", 4), "constant": (3, 3), "broken": ("batch", 4)}
    model = net.save(tmp_path / "net.onnx", IMAGE, shapes)
    finite = dict(net.constants) | {"n.weight": np.ones((8, 4), np.float32)}
    net.constants = finite
    ranges = measured(net.save(tmp_path / "finite.onnx", IMAGE, shapes), images(2))
    reasons = by_name(plan_precision(model, ranges, CPU))
    assert reasons["MatMul:a"] == ("int8", "")
    assert reasons["MatMul:both"][1] == "both inputs are activations, for which INT8 is no faster"
    assert reasons["Gemm:scaled"][1] == "alpha or beta is not 1"
    assert reasons["Gemm:broken"][1] == "weight 'n.weight' holds NaN or infinity"
    assert reasons["MatMul:constant"][1] == "input 0 is constant"


@pytest.mark.parametrize("after", ["Conv", "Softplus"])
def test_rectifiers_one_behind_the_other_are_absorbed_together(tmp_path: Path, after: str) -> None:
    """As torch.clamp behind a ReLU exports them. What lies between is read by nobody, and calibration leaves it out."""
    net = Net()
    x = net.node("Relu", [net.conv("x", "a", 3, 8)], "a_relu")
    x = net.node("Clip", [x, net.constant("low", 0), net.constant("high", 1)], "a_clip")
    y = net.conv(x, "b", 8, 4) if after == "Conv" else net.node(after, [x], "b")
    model = net.save(tmp_path / "net.onnx", IMAGE, {y: ("batch", 4 if after == "Conv" else 8, 16, 16)})
    samples = images(8)
    ranges = measured(model, samples)
    assert not {"a", "a_relu"} & set(ranges.tensors)
    plan = plan_precision(model, ranges, CPU)
    assert {name: p for name, (p, _) in by_name(plan).items() if name != "Softplus:b"} == dict.fromkeys(
        ["Conv:a", "Relu:a_relu", "Clip:a_clip", *(["Conv:b"] if after == "Conv" else [])], "int8"
    )
    made = quantize(model, ranges, plan, CPU, tmp_path / "int8.onnx")
    assert not {"Conv", "Relu", "Clip"} & set(kernels(made.path))
    assert cosine(run(made.path, images(4)), run(model.path, images(4))) > 0.99
    damages = sensitivity(model, ranges, plan, CPU, samples, threads=1).nodes
    assert damages[-1].damage > 0
    assert damages[0].damage < 0.01


@pytest.mark.parametrize("bound", [np.inf, -np.inf])
def test_an_infinite_bias_stays_in_float(tmp_path: Path, bound: float) -> None:
    net = Net()
    x = net.product("Gemm", net.node("Flatten", ["x"], "flat"), "a", 768, 8)
    net.constants["a.bias"][3] = bound
    x = net.node("Clip", [x, net.constant("low", -6), net.constant("high", 6)], "clipped")
    model = net.save(tmp_path / "net.onnx", IMAGE, {net.product("Gemm", x, "b", 8, 8): ("batch", 8)})
    ranges = measured(model, images(4))
    plan = plan_precision(model, ranges, CPU)
    assert by_name(plan)["Gemm:a"] == ("float32", "bias 'a.bias' holds NaN or infinity")
    assert by_name(plan)["Gemm:b"] == ("int8", "")
    assert by_name(plan_precision(model, ranges, TRT))["Gemm:a"] == ("int8", ""), "its bias is no integer there"
    made = quantize(model, ranges, plan, CPU, tmp_path / "int8.onnx")
    assert cosine(run(made.path, images(4)), run(model.path, images(4))) > 0.99


@pytest.mark.parametrize("encoding", [CPU, TRT], ids=lambda e: e.name)
def test_what_follows_from_constants_alone_is_constant(tmp_path: Path, encoding: Encoding) -> None:
    """A graph that was exported without folding them is quantized where its inputs go."""
    net = Net()
    table = net.node("Relu", [net.constant("table", np.ones((4, 8)))], "rectified")
    chosen = helper.make_graph(
        [helper.make_node("Neg", [table], ["turned"])], "b", [], [helper.make_tensor_value_info("turned", 1, None)]
    )
    same = net.node("If", [net.constant("yes", True, np.bool_)], "same", then_branch=chosen, else_branch=chosen)
    a = net.product("MatMul", same, "a", 8, 8)
    b = net.product("MatMul", net.node("Flatten", ["x"], "flat"), "b", 768, 8)
    model = net.save(
        tmp_path / "net.onnx", IMAGE, {net.node("Add", [b, net.node("ReduceSum", [a], "sum")], "y"): (1, 8)}
    )
    plan = by_name(plan_precision(model, measured(model, images(2)), encoding))
    assert plan["MatMul:a"][1] == "input 0 is constant"
    assert plan["MatMul:b"] == ("int8", "")


@pytest.mark.parametrize(
    ("name", "made"), [("cpu-int8", "INT8 is"), ("trt-fp8", "FP8 is"), ("cpu-weight-int8", "integer weights are")]
)
@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_floats_of_another_type_are_named(tmp_path: Path, name: str, made: str, kind: str) -> None:
    weight = onnx.numpy_helper.from_array(np.ones((64, 64), kind), "w")
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
            helper.make_node("Shape", ["n"], ["s"], name="of"),
        ],
        "net",
        [helper.make_tensor_value_info("x", element, ["batch", 64]), helper.make_tensor_value_info("n", 7, [None])],
        [helper.make_tensor_value_info("y", element, ["batch", 64]), helper.make_tensor_value_info("s", 7, [1])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "m.onnx")
    model = read_model(tmp_path / "m.onnx")
    reasons = by_name(plan_precision(model, Ranges(1, model.digest, "minmax", 1, {}), encodings()[name]))
    assert reasons["product"][1] == f"it works on {kind}, {made} made of float32"
    assert reasons["of"][1] == "it works on no floats"


def test_extremes_alone_are_no_range(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    ranges = measured(model, images(2))
    bare = replace(ranges, tensors={k: replace(v, threshold=None) for k, v in ranges.tensors.items()})
    plan = by_name(plan_precision(model, bare, CPU))
    assert plan["Conv:stem"] == ("float32", "no range for tensor 'x'")


@pytest.mark.parametrize(("after", "absorbed"), [("Softplus", False), ("Gemm", True)])
def test_a_rectifier_is_int8_only_where_the_node_before_it_writes_int8(
    tmp_path: Path, after: str, absorbed: bool
) -> None:
    net = Net()
    x = net.node("Flatten", ["x"], "flat")
    x = net.node("Relu", [net.product("Gemm", x, "a", 768, 8)], "a_relu")
    y = net.product("Gemm", x, "b", 8, 8) if after == "Gemm" else net.node(after, [x], "b")
    model = net.save(tmp_path / "net.onnx", IMAGE, {y: ("batch", 8)})
    ranges = measured(model, images(2))
    plan = plan_precision(model, ranges, CPU)
    made = quantize(model, ranges, plan, CPU, tmp_path / "int8.onnx")
    assert by_name(plan)["Gemm:a"][0] == "int8"
    assert by_name(plan)["Relu:a_relu"][0] == ("int8" if absorbed else "float32")
    held = kernels(made.path)
    assert (held["QGemm"] == 2) == absorbed


def test_subgraphs_stay_float32(tmp_path: Path) -> None:
    net = Net()
    x = net.conv("x", "a", 3, 4)
    value = helper.make_tensor_value_info
    branches = {
        branch: helper.make_graph(
            [helper.make_node(op, [x], [f"{branch}_out"], name=f"{op}:{branch}")],
            branch,
            [],
            [value(f"{branch}_out", 1, None)],
        )
        for branch, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    total = net.node("ReduceSum", [x], "total", keepdims=0)
    test = net.node("Greater", [total, net.constant("zero", 0.0)], "test")
    net.node("If", [test], "y", **branches)
    model = net.save(tmp_path / "net.onnx", IMAGE, {"y": ("batch", 4, 16, 16)})
    ranges = measured(read_model(model.path), images(2))
    plan = by_name(plan_precision(model, ranges, TRT))
    assert plan["Relu:then_branch"] == plan["Neg:else_branch"] == ("float32", "it is in a subgraph")
    assert plan["If:y"] == ("float32", "it holds a subgraph")
    assert plan["Conv:a"] == ("int8", "")
