"""Every Q/DQ pair for ONNX Runtime is there for an INT8 kernel: seen in the graphs that it really runs."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets import asset
from float_graphs import IMAGE, Net, cosine, images, lines, measured, run
from int8_kernels import idle, kernels
from trtcompress_calibration.placement import already_quantized, quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.samples import Sample
from trtcompress_engines.encodings import encodings
from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.simplify import simplify

CPU7 = encodings()["cpu-int8-r7"]


def quantized(
    model: Model, samples: list[Sample], out: Path, encoding: Encoding = CPU7
) -> tuple[Model, PrecisionPlan, dict[str, str]]:
    """The graph, its plan, and the reasons in it by node."""
    ranges = measured(model, samples)
    plan = plan_precision(model, ranges, encoding)
    return quantize(model, ranges, plan, encoding, out), plan, {n.node: n.reason for n in plan.nodes}


def upsampling_net(path: Path) -> Model:
    """A small U-Net (arXiv 1505.04597): down, up by a ConvTranspose and by Resize, with what it had joined on."""
    net = Net()
    a = net.node("Relu", [net.conv("x", "a", 3, 8)], "a_relu")
    b = net.node("MaxPool", [a], "down", kernel_shape=[2, 2], strides=[2, 2])
    b = net.node("Relu", [net.conv(b, "b", 8, 16)], "b_relu")
    c = net.node("AveragePool", [b], "deeper", kernel_shape=[2, 2], strides=[2, 2])
    c = net.node("Relu", [net.conv(c, "c", 16, 16)], "c_relu")
    scales = net.constant("scales", [1, 1, 2, 2])
    c = net.node("Resize", [c, "", scales], "larger", mode="nearest", coordinate_transformation_mode="asymmetric")
    b = net.node("Relu", [net.conv(net.node("Concat", [b, c], "both", axis=1), "d", 32, 16)], "d_relu")
    weight = net.constant("up.weight", net.rng.normal(size=(16, 8, 2, 2)) / 8)
    up = net.node("ConvTranspose", [b, weight], "up", strides=[2, 2])
    x = net.node("Concat", [a, up], "all", axis=1)
    return net.save(path, IMAGE, {net.conv(x, "mask", 16, 1, 1): ("batch", 1, 16, 16)})


def attention_net(path: Path, width: int = 128) -> Model:
    """One head of attention behind a sum and a LayerNorm, and two products with a Gelu between."""
    net = Net()
    ones, zeros = net.constant("ones", np.ones(width)), net.constant("zeros", np.zeros(width))
    x = net.node("LayerNormalization", ["x", ones, zeros], "norm")
    q, k, v = (net.product("MatMul", x, name, width, width) for name in "qkv")
    k = net.node("Transpose", [k], "k_turned", perm=[0, 2, 1])
    x = net.node("MatMul", [net.node("Softmax", [net.node("MatMul", [q, k], "scores")], "shares"), v], "mixed")
    x = net.node("Add", ["x", net.product("MatMul", x, "out", width, width)], "sum")
    x = net.node("Gelu", [net.product("MatMul", x, "wide", width, 2 * width)], "gelu")
    shape = ("batch", 6, width)
    return net.save(path, {"x": shape}, {net.product("MatMul", x, "narrow", 2 * width, width): shape})


def tokens(count: int, width: int = 128, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [Sample({"x": rng.normal(size=(1, 6, width)).astype(np.float32)}) for _ in range(count)]


def test_a_network_that_comes_down_and_up_again(tmp_path: Path) -> None:
    model = upsampling_net(tmp_path / "net.onnx")
    made, plan, reasons = quantized(model, images(8), tmp_path / "int8.onnx")
    held = kernels(made.path)
    assert idle(made.path, plan) == []
    assert (held["QLinearConv"], held["QLinearConcat"], held["ConvTranspose"], held["QLinearAveragePool"]) == (
        6,
        2,
        1,
        0,
    )
    assert reasons["ConvTranspose:up"] == "no INT8 kernel for ConvTranspose"
    assert (held["QuantizeLinear"], held["DequantizeLinear"]) == (2, 2), "the input and around the ConvTranspose"
    assert cosine(run(made.path, images(4, seed=3)), run(model.path, images(4, seed=3))) > 0.99


def test_attention_multiplies_weights_in_int8_and_activations_in_float(tmp_path: Path) -> None:
    model = attention_net(tmp_path / "net.onnx")
    made, plan, reasons = quantized(model, tokens(8), tmp_path / "int8.onnx")
    held = kernels(made.path)
    assert idle(made.path, plan) == []
    assert held["MatMulIntegerToFloat"] == 6
    assert reasons["MatMul:scores"] == "both inputs are activations, for which INT8 is no faster"
    assert reasons["Softmax:shares"] == "the INT8 kernel for Softmax is slower than the float kernel"
    assert cosine(run(made.path, tokens(4, seed=1)), run(model.path, tokens(4, seed=1))) > 0.99


def test_products_of_activations_and_softmax_have_kernels(tmp_path: Path) -> None:
    """Where an encoding says that they pay they run in INT8 too, and saturate nowhere."""
    model = attention_net(tmp_path / "net.onnx")
    encoding = replace(
        CPU7,
        slower=(),
        activation_products=True,
        ops=(*CPU7.ops, "Softmax"),
        int8_outputs=(*CPU7.int8_outputs, "Softmax"),
    )
    made, plan, _ = quantized(model, tokens(8), tmp_path / "int8.onnx", encoding)
    held = kernels(made.path)
    assert idle(made.path, plan) == []
    assert "MatMul" not in held
    assert held["QLinearSoftmax"] == 1
    exact = run(made.path, tokens(4, seed=1), kernels=False)
    assert cosine(run(made.path, tokens(4, seed=1)), exact) > 0.999
    assert cosine(exact, run(model.path, tokens(4, seed=1))) > 0.99


@pytest.mark.parametrize(("width", "int8"), [(64, False), (128, True)])
def test_a_product_by_few_weights_pays_only_behind_int8(tmp_path: Path, width: int, int8: bool) -> None:
    net = Net()
    x = net.node("Tanh", [net.product("MatMul", "x", "first", width, width)], "tanh")
    model = net.save(tmp_path / "net.onnx", {"x": ("batch", width)}, {x: ("batch", width)})
    samples = [Sample({"x": np.random.default_rng(0).normal(size=(4, width)).astype(np.float32)})]
    _, plan, reasons = quantized(model, samples, tmp_path / "int8.onnx")
    assert (plan.nodes[0].precision == "int8") is int8
    if not int8:
        assert "too few" in reasons["MatMul:first"]


def test_a_small_classifier_behind_convolutions_reads_int8(tmp_path: Path) -> None:
    net = Net()
    x = net.node("Relu", [net.conv("x", "a", 3, 8)], "a_relu")
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x], "mean")], "flat")
    model = net.save(tmp_path / "net.onnx", IMAGE, {net.product("Gemm", x, "logits", 8, 4): ("batch", 4)})
    made, plan, _ = quantized(model, images(8), tmp_path / "int8.onnx")
    assert {node.precision for node in plan.nodes} == {"int8"}
    assert idle(made.path, plan) == []
    assert kernels(made.path)["QGemm"] == 1


@pytest.mark.parametrize(("channels", "int8"), [(4, False), (8, True)])
def test_groups_of_few_channels_stay_in_float(tmp_path: Path, channels: int, int8: bool) -> None:
    net = Net()
    x = net.node("Relu", [net.conv("x", "a", 3, 32)], "a_relu")
    x = net.node("Relu", [net.conv(x, "groups", 32, 32, group=32 // channels)], "groups_relu")
    model = net.save(tmp_path / "net.onnx", IMAGE, {net.conv(x, "b", 32, 4, 1): ("batch", 4, 16, 16)})
    made, plan, reasons = quantized(model, images(4), tmp_path / "int8.onnx")
    assert idle(made.path, plan) == []
    assert kernels(made.path)["QLinearConv"] == 2 + int8
    assert bool(reasons["Conv:groups"]) is not int8


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("opset", [13, 18, 20])
def test_a_mean_over_all_places_is_a_pooling(tmp_path: Path, opset: int, keepdims: int) -> None:
    """Older graphs have its axes as an attribute; a negative axis counts from the end."""
    net = Net(opset)
    x = net.node("Relu", [net.conv("x", "a", 3, 8)], "a_relu")
    axes = {"axes": [2, -1]} if opset < 18 else {}
    inputs = [x] if opset < 18 else [x, net.constant("axes", [-2, 3], np.int64)]
    x = net.node("ReduceMean", inputs, "mean", keepdims=keepdims, **axes)
    x = net.node("Flatten", [x], "flat") if keepdims else x
    model = net.save(tmp_path / "net.onnx", IMAGE, {net.product("Gemm", x, "logits", 8, 4): ("batch", 4)})
    made, plan, _ = quantized(model, images(8), tmp_path / "int8.onnx")
    held = kernels(made.path)
    assert idle(made.path, plan) == []
    assert (held["QLinearGlobalAveragePool"], held["ReduceMean"], held["DequantizeLinear"]) == (1, 0, 0)
    graph = onnx.load(made.path).graph
    assert {"mean", "logits"} <= {name for node in graph.node for name in node.output}
    assert {held.name for held in graph.initializer} <= {name for node in graph.node for name in node.input}, "all read"
    assert cosine(run(made.path, images(4, seed=3)), run(model.path, images(4, seed=3))) > 0.995


@pytest.mark.parametrize("kind", ["Relu", "Clip"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_rectifier_vanishes_in_a_mean_over_all_places(tmp_path: Path, kind: str, keepdims: int) -> None:
    """Whether it drops its axes or not; the tensor behind the rectifier keeps its name and shape."""
    net = Net()
    axes = net.constant("axes", [2, 3], np.int64)
    x = net.node("ReduceMean", [net.conv("x", "a", 3, 8), axes], "mean", keepdims=keepdims)
    bounds = [net.constant("low", 0), net.constant("high", 6)] if kind == "Clip" else []
    x = net.node(kind, [x, *bounds], "rectified")
    x = net.node("Flatten", [x], "flat") if keepdims else x
    logits = net.product("Gemm", x, "logits", 8, 4)
    model = net.save(
        tmp_path / "net.onnx", IMAGE, {logits: ("batch", 4), "rectified": ("batch", 8, 1, 1)[: 2 + 2 * keepdims]}
    )
    made, plan, _ = quantized(model, images(8), tmp_path / "int8.onnx")
    held = kernels(made.path)
    assert idle(made.path, plan) == []
    assert (held["QLinearGlobalAveragePool"], held["ReduceMean"], held[kind]) == (1, 0, 0)
    assert made.outputs == model.outputs
    assert cosine(run(made.path, images(4, seed=3)), run(model.path, images(4, seed=3))) > 0.98


@pytest.mark.parametrize(
    ("attributes", "convolution"),
    [
        ({"strides": [2, 2]}, True),
        ({"pads": [1, 0, 1, 0], "count_include_pad": 1}, True),
        ({"pads": [1, 1, 1, 1]}, False),
        ({"strides": [2, 2], "ceil_mode": 1}, False),
    ],
)
def test_an_average_of_equal_parts_is_a_depthwise_convolution(
    tmp_path: Path, attributes: dict[str, object], convolution: bool
) -> None:
    net = Net()
    x = net.node("Relu", [net.conv("x", "a", 3, 16)], "a_relu")
    x = net.node("AveragePool", [x], "mean", kernel_shape=[3, 3], **attributes)
    model = net.save(tmp_path / "net.onnx", IMAGE, {net.conv(x, "b", 16, 4, 1): ("batch", 4, "h", "w")})
    made, plan, _ = quantized(model, images(8), tmp_path / "int8.onnx")
    held = kernels(made.path)
    assert idle(made.path, plan) == []
    assert (held["QLinearConv"], held["QLinearAveragePool"]) == ((3, 0) if convolution else (2, 1))
    found, floats = run(made.path, images(4, seed=3)), run(model.path, images(4, seed=3))
    assert found.shape == floats.shape
    assert cosine(found, floats) > 0.995


@pytest.mark.parametrize("axes", [[2], [1, 2, 3]])
def test_a_mean_over_other_axes_stays_in_float(tmp_path: Path, axes: list[int]) -> None:
    net = Net()
    x = net.node("Relu", [net.conv("x", "a", 3, 8)], "a_relu")
    x = net.node("ReduceMean", [x, net.constant("axes", axes, np.int64)], "mean")
    model = net.save(tmp_path / "net.onnx", IMAGE, {x: ("batch", None, 1, None)})  # type: ignore[list-item]
    made, plan, reasons = quantized(model, images(4), tmp_path / "int8.onnx")
    assert idle(made.path, plan) == []
    assert "ReduceMean" in reasons["ReduceMean:mean"]


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Gemm"])
def test_what_is_kept_in_float_is_not_quantized_by_the_engine(tmp_path: Path, kind: str) -> None:
    """Left to itself ONNX Runtime quantizes its weights with one scale for all, where a few of them are greatest."""
    net = Net()
    x = net.node("Relu", [net.conv("x", "a", 3, 8)], "a_relu")
    if kind == "Gemm":
        x = net.node("Flatten", [net.node("GlobalAveragePool", [x], "mean")], "flat")
        x = net.product("Gemm", x, "kept", 8, 8)
        x = net.product("Gemm", net.node("Relu", [x], "kept_relu"), "b", 8, 4)
    elif kind == "Conv":
        x = net.conv(net.node("Relu", [net.conv(x, "kept", 8, 8)], "kept_relu"), "b", 8, 4)
    else:
        net.constant("kept.weight", net.rng.normal(size=(8, 8, 2, 2)) / 4)
        x = net.node("ConvTranspose", [x, "kept.weight", net.constant("kept.bias", np.ones(8))], "kept")
        x = net.conv(net.node("Relu", [x], "kept_relu"), "b", 8, 4)
    shape = ("batch", 4) if kind == "Gemm" else ("batch", 4, "h", "w")
    model = net.save(tmp_path / "net.onnx", IMAGE, {x: shape})
    ranges = measured(model, images(4))
    encoding = replace(CPU7, product_weights=0)
    plan = plan_precision(model, ranges, encoding, skip=[f"{kind}:kept"])
    made = quantize(model, ranges, plan, encoding, tmp_path / "int8.onnx")
    held = kernels(made.path)
    assert idle(made.path, plan) == []
    assert held[kind] + held["FusedConv"] + held["FusedGemm"] == 1
    np.testing.assert_allclose(run(made.path, images(4)), run(made.path, images(4), kernels=False), atol=0.1)


MOVED: dict[str, tuple[list[tuple[str, dict[str, object], list[int] | None]], str]] = {
    "Reshape": ([("Reshape", {}, [-1, 8])], "Gemm"),
    "Squeeze": ([("Squeeze", {}, [2, 3])], "Gemm"),
    "Flatten": ([("Flatten", {}, None)], "Gemm"),
    "Transpose and Reshape": ([("Transpose", {"perm": [0, 2, 3, 1]}, None), ("Reshape", {}, [-1, 8])], "Gemm"),
    "Squeeze and Identity": ([("Squeeze", {}, [2, 3]), ("Identity", {}, None)], "Gemm"),
    "Squeeze and Unsqueeze": ([("Squeeze", {}, [2]), ("Unsqueeze", {}, [2])], "Conv"),
    "Transpose": ([("Transpose", {"perm": [0, 1, 3, 2]}, None)], "Conv"),
    "transposed": ([("Reshape", {}, [-1, 8]), ("Transpose", {"perm": [1, 0]}, None)], "Gemm"),
    "Reshape, then MatMul": ([("Reshape", {}, [-1, 8])], "MatMul"),
}
"""What stands between an INT8 node and one that is kept in float, and of which kind that is."""


@pytest.mark.parametrize("name", MOVED)
def test_what_is_kept_in_float_stays_so_behind_what_moves_numbers(tmp_path: Path, name: str) -> None:
    """ONNX Runtime moves a DequantizeLinear over it, to where it is behind one after all."""
    between, kind = MOVED[name]
    net = Net()
    x = net.node("Relu", [net.conv("x", "a", 3, 8)], "a_relu")
    x = net.node("MaxPool", [x], "pool", kernel_shape=[16, 16])
    for place, (op, attributes, constant) in enumerate(between):
        inputs = [x] if constant is None else [x, net.constant(f"places{place}", constant, np.int64)]
        x = net.node(op, inputs, f"moved{place}", **attributes)
    loud = net.rng.normal(size=(8, 8)) * np.where(np.arange(8), 1, 300)
    loud = loud.T.reshape(8, 8, 1, 1) if kind == "Conv" else loud
    weights = [x, net.constant("kept.weight", loud), net.constant("kept.bias", np.zeros(8))]
    if kind == "MatMul":
        x = net.node("Add", [net.node(kind, weights[:2], "kept"), "kept.bias"], "kept_sum")
    else:
        x = net.node(kind, weights, "kept", **({"transA": 1} if name == "transposed" else {}))
    x = net.node("Clip", [x, net.constant("low", -1), net.constant("high", 1)], "clipped")
    x = net.conv(x, "b", 8, 4) if kind == "Conv" else net.product("Gemm", x, "b", 8, 4)
    model = net.save(tmp_path / "net.onnx", IMAGE, {x: ("batch", 4, 1, 1) if kind == "Conv" else ("batch", 4)})
    ranges = measured(model, images(4))
    encoding = replace(CPU7, product_weights=0)
    plan = plan_precision(model, ranges, encoding, skip=[f"{kind}:kept"])
    made = quantize(model, ranges, plan, encoding, tmp_path / "int8.onnx")
    held = kernels(made.path)
    assert held["Conv"] + held["Gemm"] + held["FusedConv"] + held["FusedGemm"] == 1
    assert held["QGemm"] + held["QLinearConv"] == 2
    np.testing.assert_allclose(run(made.path, images(4)), run(made.path, images(4), kernels=False), atol=0.1)


def recurrent_net(path: Path, hidden: int, direction: str = "forward") -> Model:
    net = Net()
    count = 2 if direction == "bidirectional" else 1
    weight = net.constant("w", net.rng.normal(size=(count, 4 * hidden, 24)) / 5)
    again = net.constant("r", net.rng.normal(size=(count, 4 * hidden, hidden)) / np.sqrt(hidden))
    bias = net.constant("b", net.rng.normal(size=(count, 8 * hidden)) / 10)
    net.node("LSTM", ["x", weight, again, bias], "states", hidden_size=hidden, direction=direction)
    return net.save(path, {"x": (7, "batch", 24)}, {"states": (7, count, "batch", hidden)})


def steps(count: int, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [Sample({"x": rng.normal(size=(7, 1, 24)).astype(np.float32)}) for _ in range(count)]


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("encoding", [CPU7, encodings()["cpu-int8"]], ids=lambda e: e.name)
def test_an_lstm_with_enough_weights_has_integer_weights(tmp_path: Path, encoding: Encoding, direction: str) -> None:
    model = recurrent_net(tmp_path / "net.onnx", 192, direction)
    made, plan, _ = quantized(model, steps(4), tmp_path / "int8.onnx", encoding)
    assert [node.precision for node in plan.nodes] == ["int8"]
    assert (made.inputs, made.outputs) == (model.inputs, model.outputs)
    assert kernels(made.path) == {"DynamicQuantizeLSTM": 1}
    assert already_quantized(made) == ("LSTM:states",)
    assert made.path.stat().st_size < model.path.stat().st_size / 3.5
    if encoding is CPU7:
        assert cosine(run(made.path, steps(4, 1)), run(model.path, steps(4, 1))) > 0.995


def test_a_small_lstm_stays_in_float(tmp_path: Path) -> None:
    model = recurrent_net(tmp_path / "net.onnx", 32)
    made, _, reasons = quantized(model, steps(4), tmp_path / "int8.onnx")
    assert kernels(made.path) == {"LSTM": 1}
    assert reasons == {"LSTM:states": "its weights are too few for INT8 to pay"}


def test_what_picks_and_compares_stays_int8(tmp_path: Path) -> None:
    """Where, GatherElements, DepthToSpace, ReduceMax: between convolutions each has an INT8 kernel."""
    net = Net()
    a, b = net.conv("x", "a", 3, 16), net.conv("x", "b", 3, 16)
    mask = net.constant("mask", np.arange(256).reshape(1, 1, 16, 16) % 3 > 0, np.bool_)
    x = net.conv(net.node("Where", [mask, a, b], "picked"), "p", 16, 16)
    turned = np.broadcast_to(np.arange(16)[::-1].reshape(1, 16, 1, 1), (1, 16, 16, 16))
    x = net.node("GatherElements", [x, net.constant("places", turned, np.int64)], "turned", axis=1)
    x = net.node("DepthToSpace", [x], "spread", blocksize=2)
    x = net.conv(x, "c", 4, 8)
    x = net.node("ReduceMax", [x, net.constant("axes", [2, 3], np.int64)], "most", keepdims=1)
    model = net.save(tmp_path / "net.onnx", {"x": (1, 3, 16, 16)}, {net.conv(x, "d", 8, 4, 1): (1, 4, 1, 1)})
    made, plan, _ = quantized(model, images(8), tmp_path / "int8.onnx")
    held = kernels(made.path)
    assert idle(made.path, plan) == []
    assert {node.precision for node in plan.nodes} == {"int8"}
    assert (held["QLinearWhere"], held["DequantizeLinear"], held["QuantizeLinear"]) == (1, 1, 1)
    assert cosine(run(made.path, images(4, seed=3)), run(model.path, images(4, seed=3))) > 0.99


@pytest.mark.parametrize(
    ("tail", "shape"), [("det_infer.onnx", (3, 96, 160)), ("rec_infer.onnx", (3, 48, 160)), ("cls_infer.onnx", None)]
)
def test_real_networks_hold_no_idle_pair(tmp_path: Path, tail: str, shape: tuple[int, int, int] | None) -> None:
    model = simplify(read_model(asset("rapidocr-onnxruntime", tail)), tmp_path / "model.onnx")
    samples = lines(2, shape or (3, 48, 192))
    made, plan, reasons = quantized(model, samples, tmp_path / "int8.onnx")
    assert idle(made.path, plan) == []
    assert kernels(made.path)["QLinearConv"] > 20
    assert all(reasons[node.node] for node in plan.nodes if node.precision != "int8")


CHAINED = (
    *("Conv", "Depthwise", "Relu", "Clip", "Sigmoid", "LeakyRelu", "HardSigmoid", "Tanh", "Softmax", "MaxPool"),
    *("AveragePool", "ReduceMax", "Add", "Mul", "Where", "Concat", "Split", "Slice", "Transpose", "Reshape", "Resize"),
    "Output",
)


@st.composite
def chains(draw: st.DrawFn) -> tuple[str, ...]:
    return tuple(draw(st.lists(st.sampled_from(CHAINED), min_size=2, max_size=9)))


def chained(path: Path, kinds: tuple[str, ...]) -> Model:
    """Operators one behind the other, 8 channels throughout; those of two inputs read an earlier tensor too."""
    net = Net()
    x = net.conv("x", "stem", 3, 8)
    earlier, outputs = x, {}
    for number, kind in enumerate(kinds):
        name, before = f"t{number}", x
        if kind == "Conv":
            x = net.conv(x, name, 8, 8)
        elif kind == "Depthwise":
            x = net.conv(x, name, 8, 8, group=8)
        elif kind in ("MaxPool", "AveragePool"):
            x = net.node(kind, [x], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif kind == "Clip":
            x = net.node(kind, [x, net.constant(f"{name}.low", 0.0), net.constant(f"{name}.high", 2.0)], name)
        elif kind in ("Add", "Mul"):
            x = net.node(kind, [x, earlier], name)
        elif kind == "Concat":
            x = net.conv(net.node(kind, [x, earlier], f"{name}_both", axis=1), name, 16, 8, 1)
        elif kind == "Where":
            mask = net.constant(f"{name}.mask", net.rng.random((1, 1, 16, 16)) > 0.5, np.bool_)
            x = net.node(kind, [mask, x, earlier], name)
        elif kind == "Transpose":
            x = net.conv(net.node(kind, [x], f"{name}_turned", perm=[0, 1, 3, 2]), name, 8, 8, 1)
        elif kind == "Split":
            net.nodes.append(
                onnx.helper.make_node(kind, [x], [f"{name}_a", f"{name}_b"], name=name, axis=1, num_outputs=2)
            )
            x = net.node("Concat", [f"{name}_b", f"{name}_a"], name, axis=1)
        elif kind == "Resize":
            x = net.node(kind, [x, "", net.constant(f"{name}.scales", [1, 1, 2, 2])], f"{name}_large", mode="nearest")
            x = net.node("MaxPool", [x], name, kernel_shape=[2, 2], strides=[2, 2])
        elif kind == "ReduceMax":
            most = net.node(kind, [x, net.constant(f"{name}.axes", [2, 3], np.int64)], f"{name}_most")
            x = net.node("Add", [x, most], name)
        elif kind == "Slice":
            ends = [net.constant(f"{name}.{i}", [v], np.int64) for i, v in enumerate((4, 8, 1))]
            half = net.node(kind, [x, *ends], f"{name}_half")
            x = net.node("Concat", [half, half], name, axis=1)
        elif kind == "Reshape":
            x = net.node(kind, [x, net.constant(f"{name}.shape", [0, 8, 16, 16], np.int64)], name)
        elif kind == "Output":
            outputs[x] = ("batch", 8, 16, 16)
        else:
            x = net.node(kind, [x], name)
        earlier = before
    outputs[net.conv(x, "last", 8, 4)] = ("batch", 4, 16, 16)
    return net.save(path, IMAGE, outputs)


@settings(max_examples=40, deadline=None)
@given(kinds=chains())
def test_random_chains_hold_no_idle_pair(kinds: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = chained(Path(folder) / "net.onnx", kinds)
        made, plan, _ = quantized(model, images(2), Path(folder) / "int8.onnx")
        assert idle(made.path, plan) == []
        exact = run(made.path, images(2), kernels=False)
        assert cosine(run(made.path, images(2)) + 1e-6, exact + 1e-6) > 0.99
