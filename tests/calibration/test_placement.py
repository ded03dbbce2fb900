"""Q/DQ for ONNX Runtime: what fuses, what it computes, and what survives."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from assets import asset
from float_graphs import IMAGE, Net, cosine, images, kinds, measured, optimized, residual_net, run
from trtcompress_calibration.collect import calibrate
from trtcompress_calibration.placement import already_quantized, quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.samples import Sample
from trtcompress_engines.encodings import encodings
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.errors import DataError, ModelError, PlacementError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges, TensorRange
from trtcompress_graph.simplify import simplify

CPU = encodings()["cpu-int8"]
CPU7 = encodings()["cpu-int8-r7"]


def written(model: Model, ranges: Ranges, encoding: Encoding, out: Path) -> Model:
    return quantize(model, ranges, plan_precision(model, ranges, encoding), encoding, out)


def constants(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_a_residual_net_runs_whole_in_int8(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    quantized = written(model, measured(model, images(16)), CPU7, tmp_path / "int8.onnx")
    held = optimized(quantized.path)
    assert (held["QLinearConv"], held["QLinearAdd"], held["QGemm"], held["QLinearGlobalAveragePool"]) == (6, 2, 1, 1)
    assert held["QuantizeLinear"] == 1, "only the graph's input is quantized on its own"
    assert not {"DequantizeLinear", "Relu", "Conv", "Add", "Gemm"} & set(held)
    ours, floats = run(quantized.path, images(8, seed=2)), run(model.path, images(8, seed=2))
    assert cosine(ours, floats) > 0.995


def test_inputs_outputs_and_names_survive(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    quantized = written(model, measured(model, images(4)), CPU, tmp_path / "int8.onnx")
    assert (quantized.inputs, quantized.outputs) == (model.inputs, model.outputs)
    before, after = onnx.load(model.path).graph, onnx.load(quantized.path).graph
    tensors = {name for node in after.node for name in node.output}
    assert {name for node in before.node for name in node.output} <= tensors
    assert {node.name for node in before.node} <= {node.name for node in after.node}
    assert len({node.name for node in after.node}) == len(after.node)
    held = constants(quantized.path)
    for name in ("stem", "a1", "logits"):
        assert f"{name}.weight" not in held
        assert held[f"{name}.weight_quantized"].dtype == np.int8
        assert held[f"{name}.bias_quantized"].dtype == np.int32
        assert held[f"{name}.weight_scale"].dtype == np.float32
        assert not held[f"{name}.weight_zero_point"].any()


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    ranges = measured(model, images(4))
    digests = {written(model, ranges, e, tmp_path / f"{i}.onnx").digest for i in (1, 2) for e in [CPU]}
    assert len(digests) == 1
    assert hashlib.sha256((tmp_path / "1.onnx").read_bytes()).hexdigest() in digests


@pytest.mark.parametrize(("encoding", "limit"), [(CPU, 127), (CPU7, 63)])
def test_weights_have_their_bits(tmp_path: Path, encoding: Encoding, limit: int) -> None:
    model = residual_net(tmp_path / "net.onnx")
    held = constants(written(model, measured(model, images(4)), encoding, tmp_path / "int8.onnx").path)
    weights = [v for name, v in held.items() if name.endswith("weight_quantized")]
    assert len(weights) == 7
    assert all(np.abs(w.astype(int)).max() == limit for w in weights)


@pytest.mark.parametrize(("group", "limit"), [(1, 63), (2, 63), (16, 127)])
def test_no_kernel_saturates_with_reduced_weights(tmp_path: Path, group: int, limit: int) -> None:
    """Largest weights on largest activations: with 8 bits a CPU without VNNI loses half of the sum."""
    net = Net()
    weight = np.ones((16, 16 // group, 3, 3)) * np.where(np.arange(16) % 2, 1, -1).reshape(-1, 1, 1, 1)
    inputs = ["x", net.constant("w", weight), net.constant("b", np.zeros(16))]
    shapes = {"x": ("batch", 16, 8, 8)}, {"y": ("batch", 16, 8, 8)}
    net.node("Conv", inputs, "y", pads=[1, 1, 1, 1], group=group)
    model = net.save(tmp_path / "net.onnx", *shapes)
    samples = [Sample({"x": np.random.default_rng(0).uniform(200, 255, (1, 16, 8, 8)).astype(np.float32)})]
    quantized = written(model, measured(model, samples), CPU7, tmp_path / "int8.onnx")
    assert np.abs(constants(quantized.path)["w_quantized"].astype(int)).max() == limit
    assert optimized(quantized.path)["QLinearConv"] == 1
    exact = run(quantized.path, samples, kernels=False)
    assert np.abs(run(quantized.path, samples) - exact).max() <= np.abs(exact).max() / 100


def test_a_convolution_that_runs_as_a_product_gives_the_same_numbers(tmp_path: Path) -> None:
    """Weights with zero point -1 stand for the same numbers, so that not one bit of the outputs may change."""
    model = residual_net(tmp_path / "net.onnx")
    ranges = measured(model, images(8))
    products = replace(CPU7, product_convs=(100, 16))
    plain = written(model, ranges, CPU7, tmp_path / "plain.onnx")
    shifted = written(model, ranges, products, tmp_path / "shifted.onnx")
    held = {name: values for name, values in constants(shifted.path).items() if name.endswith("weight_zero_point")}
    assert {name for name, values in held.items() if (values == -1).all()} == {
        f"{name}.weight_zero_point" for name in ("a1", "a2", "b1", "b2")
    }, "3 x 3 from 16 channels; the stem reads 3, the shortcut is 1 x 1"
    assert not any(values.any() for name, values in held.items() if name.startswith(("stem", "b0", "logits")))
    assert optimized(shifted.path) == optimized(plain.path)
    samples = images(4, seed=2)
    np.testing.assert_array_equal(run(shifted.path, samples), run(plain.path, samples))


def test_the_numbers_are_those_of_the_specification(tmp_path: Path) -> None:
    """A convolution worked out by hand: integers in, int32 sum, one rounding out."""
    net = Net()
    weight = np.asarray([[1.0, -2.0], [0.5, 0.25]], np.float32)
    names = [net.constant("w", weight.reshape(2, 2, 1, 1)), net.constant("b", [0.1, -0.3])]
    net.node("Relu", [net.node("Conv", ["x", *names], "y")], "out")
    model = net.save(tmp_path / "net.onnx", {"x": (1, 2, 1, 4)}, {"out": (1, 2, 1, 4)})
    held = {"x": TensorRange(-1.0, 1.55, 1.55, 0.0), "out": TensorRange(0.0, 2.55, 2.55, 0.0)}
    quantized = written(model, Ranges(1, model.digest, "minmax", 1, held), CPU, tmp_path / "int8.onnx")

    x = np.asarray([[[[-1.0, 0.0, 0.33, 1.5]], [[0.5, 0.015, -0.7, 1.0]]]], np.float32)
    step, zero = np.float32(2.55 / 255), 100
    q = np.clip(np.rint(x / step) + zero, 0, 255) - zero
    scales = np.abs(weight).max(axis=1) / np.float32(127)
    integers = np.rint(weight / scales[:, None])
    bias = np.rint(np.asarray([0.1, -0.3]) / (step * scales))
    sums = np.einsum("oc,nchw->nohw", integers, q) + bias.reshape(1, 2, 1, 1)
    out = np.clip(np.rint(sums * (step * scales / np.float32(0.01)).reshape(1, 2, 1, 1)), 0, 255) * np.float32(0.01)
    assert constants(quantized.path)["x_zero_point"] == zero
    np.testing.assert_allclose(run(quantized.path, [Sample({"x": x})], kernels=False), out, atol=1e-6)


@pytest.mark.parametrize("loud", [1.0, 1000.0])
@pytest.mark.parametrize("encoding", [CPU, encodings()["trt-int8"]])
def test_what_would_mostly_become_zero_stays_float(tmp_path: Path, encoding: Encoding, loud: float) -> None:
    """A few loud values set the step, as in a spectrum: the quiet ones must not be lost without a word."""
    net = Net()
    x = net.node("Relu", [net.conv("x", "a", 3, 8)], "a_relu")
    model = net.save(tmp_path / "net.onnx", IMAGE, {net.conv(x, "b", 8, 4): ("batch", 4, 16, 16)})
    samples = [Sample({"x": sample.inputs["x"].copy()}) for sample in images(8)]
    for sample in samples:
        sample.inputs["x"][:, :, 0, 0] *= loud
    ranges = calibrate(model, samples, method="minmax")
    assert (0 < ranges.tensors["x"].bulk < ranges.tensors["x"].amax / 255) == (loud > 1)
    plan = plan_precision(model, ranges, encoding)
    found = {node.node: node for node in plan.nodes if node.op == "Conv"}
    for node in found.values():
        assert (node.precision == "int8") == (loud == 1)
        assert ("would become zero: its range is too wide for 8 bits" in node.reason) == (loud > 1)


@pytest.mark.parametrize("encoding", [CPU, encodings()["trt-int8"]])
def test_a_leaky_rectifier_loses_half_of_its_values_by_design(tmp_path: Path, encoding: Encoding) -> None:
    net = Net()
    x = net.node("LeakyRelu", [net.conv("x", "a", 3, 8)], "a_leaky", alpha=0.01)
    model = net.save(tmp_path / "net.onnx", IMAGE, {net.conv(x, "b", 8, 4): ("batch", 4, 16, 16)})
    plan = plan_precision(model, calibrate(model, images(8), method="minmax"), encoding)
    assert {node.precision for node in plan.nodes if node.op == "Conv"} == {"int8"}


def test_what_alone_would_only_cost_stays_float(tmp_path: Path) -> None:
    """An Add between floats, a Sigmoid at the end, a pooling before nothing that is INT8."""
    net = Net()
    x = net.node("Tanh", ["x"], "t")
    x = net.node("Add", [x, net.node("Exp", ["x"], "e")], "sum")
    x = net.node("MaxPool", [x], "pool", kernel_shape=[2, 2])
    model = net.save(tmp_path / "net.onnx", IMAGE, {x: ("batch", 3, 15, 15)})
    ranges = measured(model, images(4))
    plan = plan_precision(model, ranges, CPU)
    assert {p.precision for p in plan.nodes} == {"float32"}
    assert kinds(quantize(model, ranges, plan, CPU, tmp_path / "int8.onnx").path) == kinds(model.path)


def test_concat_and_moves_stay_int8_between_convolutions(tmp_path: Path) -> None:
    net = Net()
    a = net.node("Relu", [net.conv("x", "a", 3, 8)], "a_relu")
    b = net.node("Sigmoid", [net.conv("x", "b", 3, 8)], "b_sigmoid")
    joined = net.node("Concat", [a, b], "joined", axis=1)
    moved = net.node("Transpose", [joined], "moved", perm=[0, 1, 3, 2])
    model = net.save(tmp_path / "net.onnx", IMAGE, {net.conv(moved, "c", 16, 4): ("batch", 4, 16, 16)})
    quantized = written(model, measured(model, images(8)), CPU7, tmp_path / "int8.onnx")
    held = optimized(quantized.path)
    assert (held["QLinearConv"], held["QLinearConcat"], held["QLinearSigmoid"]) == (3, 1, 1)
    assert (held["QuantizeLinear"], held["DequantizeLinear"]) == (1, 1)
    scales = constants(quantized.path)
    assert scales["joined_scale"] == scales["moved_scale"]
    assert cosine(run(quantized.path, images(4, seed=3)), run(model.path, images(4, seed=3))) > 0.995


@pytest.mark.parametrize(("low", "high", "vanishes"), [(0.0, 6.0, True), (-1.0, 1.0, True), (0.5, 2.0, False)])
def test_a_clip_vanishes_where_zero_passes_it(tmp_path: Path, low: float, high: float, vanishes: bool) -> None:
    net = Net()
    x = net.conv("x", "a", 3, 8)
    x = net.node("Clip", [x, net.constant("low", low), net.constant("high", high)], "clipped")
    model = net.save(tmp_path / "net.onnx", IMAGE, {net.conv(x, "b", 8, 4): ("batch", 4, 16, 16)})
    tensors = dict(measured(model, images(8)).tensors) | {"a": TensorRange(-9.0, 9.0, 9.0, 0.0)}
    ranges = Ranges(1, model.digest, "minmax", 8, tensors)
    quantized = written(model, ranges, CPU7, tmp_path / "int8.onnx")
    assert ("Clip" in optimized(quantized.path)) is not vanishes
    assert cosine(run(quantized.path, images(4, seed=3)), run(model.path, images(4, seed=3))) > 0.99


def test_a_float_reader_of_an_int8_result_reads_it_dequantized(tmp_path: Path) -> None:
    net = Net()
    x = net.conv("x", "a", 3, 8)
    outputs = {net.node("Softplus", [x], "soft"): ("batch", 8, 16, 16), x: ("batch", 8, 16, 16)}
    model = net.save(tmp_path / "net.onnx", IMAGE, outputs)
    quantized = written(model, measured(model, images(8)), CPU7, tmp_path / "int8.onnx")
    assert quantized.outputs == model.outputs
    assert optimized(quantized.path)["QLinearConv"] == 1


def test_without_quantization_the_model_is_copied(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    ranges = measured(model, images(2))
    assert written(model, ranges, encodings()["cpu-fp32"], tmp_path / "out" / "model.onnx").digest == model.digest


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    ranges = measured(model, images(2))
    assert already_quantized(model) == ()
    quantized = written(model, ranges, CPU, tmp_path / "int8.onnx")
    assert len(already_quantized(quantized)) == sum(n for op, n in kinds(quantized.path).items() if "Linear" in op)
    with pytest.raises(ModelError, match="quantized already") as caught:
        plan_precision(quantized, ranges, CPU)
    assert "int8.onnx" in caught.value.where


def test_a_plan_of_another_model_or_encoding_is_refused(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    ranges = measured(model, images(2))
    plan = plan_precision(model, ranges, CPU)
    with pytest.raises(PlacementError, match="encoding 'cpu-int8'"):
        quantize(model, ranges, plan, CPU7, tmp_path / "int8.onnx")
    other = replace(plan, nodes=(replace(plan.nodes[0], node="elsewhere"), *plan.nodes[1:]))
    with pytest.raises(PlacementError, match="no node 'elsewhere'"):
        quantize(model, ranges, other, CPU, tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


def test_a_range_that_went_missing_is_named(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    ranges = measured(model, images(2))
    plan = plan_precision(model, ranges, CPU)
    fewer = replace(ranges, tensors={k: v for k, v in ranges.tensors.items() if k != "a1_relu"})
    with pytest.raises(DataError, match="'a1_relu' has no range"):
        quantize(model, fewer, plan, CPU, tmp_path / "int8.onnx")
    with pytest.raises(DataError, match="'a1_relu' has no range") as caught:
        plan_precision(model, fewer, CPU)
    assert caught.value.where == "node 'Conv:a2' (Conv)"
    assert "--skip 'Conv:a2'" in caught.value.hint


def test_the_text_detector(tmp_path: Path) -> None:
    model = simplify(read_model(asset("rapidocr-onnxruntime", "det_infer.onnx")), tmp_path / "model.onnx")
    samples = images(3, (3, 96, 160))
    quantized = written(model, measured(model, samples), CPU7, tmp_path / "int8.onnx")
    assert optimized(quantized.path)["QLinearConv"] == kinds(model.path)["Conv"]
    assert quantized.path.stat().st_size < model.path.stat().st_size / 3
    assert np.isfinite(run(quantized.path, samples)).all()


def test_importing_it_loads_no_onnx() -> None:
    """A rebuild that does no work imports this module and must stay quick."""
    code = (
        "import sys, trtcompress_calibration.placement, trtcompress_calibration.precision; "
        "sys.exit(bool({'onnx', 'onnx_ir', 'onnxruntime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
