"""What each INT8 node and tensor costs at the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from float_graphs import IMAGE, Net, images, measured, residual_net
from trtcompress_calibration.layout import lay_out
from trtcompress_calibration.opening import open_graph
from trtcompress_calibration.placement import int8_nodes, quantize
from trtcompress_calibration.precision import needed_opset, plan_precision
from trtcompress_calibration.qdq import QdqWriter
from trtcompress_calibration.samples import Sample
from trtcompress_calibration.scales import Scale
from trtcompress_calibration.sensitivity import sensitivity, spread
from trtcompress_calibration.spots import node_spots, restored
from trtcompress_engines.encodings import encodings
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.errors import DataError
from trtcompress_graph.load import read_model, save_ir
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

CPU = replace(encodings()["cpu-int8"], product_weights=0)  # the networks here are small
TRT = encodings()["trt-int8"]


def branches(path: Path) -> Model:
    """Nodes that read what was made long before, one tensor that is read as INT8 and as a float, and two outputs."""
    net = Net()
    x = net.node("LeakyRelu", [net.conv("x", "stem", 3, 8)], "stem_leaky")
    late = net.conv(x, "late", 8, 8)
    wave = net.node("Sin", [net.conv(x, "other", 8, 8)], "wave")
    late = net.node("Relu", [late], "late_relu")
    both = net.node("Add", [late, wave], "both")
    net.node("Softmax", [x], "seen", axis=1)
    pooled = net.node("Flatten", [net.node("GlobalAveragePool", [both], "mean")], "flat")
    net.product("MatMul", pooled, "logits", 8, 5)
    return net.save(path, IMAGE, {"seen": ("batch", 8, 16, 16), "logits": ("batch", 5)})


def answers(path: Path, samples: Sequence[Sample]) -> list[np.ndarray]:
    """All outputs of one batch, each node computed by itself."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {"x": np.concatenate([sample.inputs["x"] for sample in samples])})
    return found


def damage(full: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    shares = []
    for a, b in zip(full, other, strict=True):
        one, two = a.astype(np.float64), b.astype(np.float64)
        shares.append(np.square(one - two).sum() / np.square(one - one.mean()).sum())
    return float(np.mean(shares))


def left_out(model: Model, ranges: Ranges, encoding: Encoding, node: str, out: Path) -> Path:
    """The graph in which this node alone is INT8, with the scales of the whole quantized graph."""
    plan = plan_precision(model, ranges, encoding)
    loaded = open_graph(model, needed_opset(encoding))
    int8 = int8_nodes(loaded.graph, plan, encoding)
    pairs = lay_out(loaded.graph, int8, encoding, ranges.tensors)
    (spot,) = (spot for spot in node_spots(loaded.graph, int8, pairs, encoding) if spot.node.name == node)
    mine = []
    for pair in spot.pairs:
        if pair.value.name in spot.writes:
            mine.append(pair)
        else:
            mine.append(replace(pair, readers=tuple(r for r in pair.readers if r[0] is spot.node), whole=False))
    QdqWriter(loaded.graph, encoding).write(mine, {spot.node})
    return save_ir(loaded, out).path


@pytest.mark.parametrize("encoding", [CPU, TRT], ids=lambda e: e.name)
@pytest.mark.parametrize("net", [residual_net, branches])
def test_the_same_as_quantizing_one_node_and_running_it_all(
    net: Callable[[Path], Model], encoding: Encoding, tmp_path: Path
) -> None:
    model, samples = net(tmp_path / "net.onnx"), images(6)
    ranges = measured(model, samples)
    plan = plan_precision(model, ranges, encoding)
    found = sensitivity(model, ranges, plan, encoding, samples, samples=6, threads=1, optimize=False)
    full = answers(model.path, samples)
    assert {each.name for each in found.nodes} == {
        p.node for p in plan.nodes if p.precision == "int8" and p.op in encoding.ops
    }
    for each in found.nodes:
        path = left_out(model, ranges, encoding, each.name, tmp_path / "one.onnx")
        assert each.damage == pytest.approx(damage(full, answers(path, samples)), rel=1e-12, abs=0), each.name
    assert [each.damage for each in found.nodes] == sorted((each.damage for each in found.nodes), reverse=True)


@pytest.mark.parametrize("encoding", [CPU, TRT], ids=lambda e: e.name)
def test_each_quantized_tensor_is_told_once(encoding: Encoding, tmp_path: Path) -> None:
    model, samples = branches(tmp_path / "net.onnx"), images(6)
    ranges = measured(model, samples)
    plan = plan_precision(model, ranges, encoding)
    found = sensitivity(model, ranges, plan, encoding, samples, threads=1)
    loaded = open_graph(model, needed_opset(encoding))
    pairs = lay_out(loaded.graph, int8_nodes(loaded.graph, plan, encoding), encoding, ranges.tensors)
    activations = [each.name for each in found.tensors if each.kind == "activation"]
    assert sorted(activations) == sorted(str(pair.value.name) for pair in pairs)
    weights = {each.name for each in found.tensors if each.kind == "weight"}
    assert weights == {"stem.weight", "late.weight", "other.weight", "logits.weight"}
    assert all(each.damage > 0 for each in found.tensors)
    assert (found.samples, set(found.outputs)) == (4, {"seen", "logits"})


def test_a_tensor_that_some_read_as_floats_is_quantized_for_the_others_only(tmp_path: Path) -> None:
    """TensorRT: `stem_leaky` is INT8 for two convolutions and a float for Softmax, whose output is unharmed."""
    model, samples = branches(tmp_path / "net.onnx"), images(6)
    ranges = measured(model, samples)
    plan = plan_precision(model, ranges, TRT)
    found = sensitivity(model, ranges, plan, TRT, samples, samples=6, threads=1, optimize=False)
    (tensor,) = (each for each in found.tensors if each.name == "stem_leaky")
    assert tensor.nodes == ("Conv:late", "Conv:other")
    loaded = open_graph(model, needed_opset(TRT))
    pairs = lay_out(loaded.graph, int8_nodes(loaded.graph, plan, TRT), TRT, ranges.tensors)
    QdqWriter(loaded.graph, TRT).write([pair for pair in pairs if pair.value.name == "stem_leaky"], ())
    alone = answers(save_ir(loaded, tmp_path / "one.onnx").path, samples)
    assert tensor.damage == pytest.approx(damage(answers(model.path, samples), alone), rel=1e-12, abs=0)


@pytest.mark.parametrize("zero_point", [np.uint8(0), np.uint8(37), np.int8(0)])
def test_a_pair_gives_what_onnx_says(zero_point: np.uint8 | np.int8, tmp_path: Path) -> None:
    scale = Scale(np.float32(0.0371), zero_point)
    values = np.random.default_rng(0).normal(size=4096, scale=4).astype(np.float32)
    values[:512] = (np.arange(512) - 256 + 0.5) * scale.scale
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        "pair",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4096])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4096])],
        [
            onnx.numpy_helper.from_array(np.asarray(value), name)
            for name, value in (("s", scale.scale), ("z", zero_point))
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "p.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "p.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(restored(values, scale), session.run(None, {"x": values})[0])


def recurrent(path: Path) -> Model:
    """An LSTM with states from the outside, of which only the last hidden state is read, and a product behind it."""
    net, hidden = Net(), 192
    shapes = {"w": (1, 4 * hidden, 24), "r": (1, 4 * hidden, hidden), "b": (1, 8 * hidden)}
    names = [net.constant(name, net.rng.normal(size=shape) / 8) for name, shape in shapes.items()]
    inputs = ["x", *names, "", "h"]
    net.nodes.append(onnx.helper.make_node("LSTM", inputs, ["", "last"], name="lstm", hidden_size=hidden))
    flat = net.node("Squeeze", ["last", net.constant("axes", [0], np.int64)], "flat")
    net.product("MatMul", flat, "y", hidden, hidden)
    return net.save(path, {"x": (5, "batch", 24), "h": (1, "batch", hidden)}, {"y": ("batch", hidden)})


def test_an_lstm_is_ranked_with_what_its_integers_cost(tmp_path: Path) -> None:
    """So that it can be kept in float where a graph is not accurate enough."""
    model, rng = recurrent(tmp_path / "net.onnx"), np.random.default_rng(0)
    shapes = {"x": (5, 1, 24), "h": (1, 1, 192)}
    samples = [
        Sample({name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}) for _ in range(4)
    ]
    ranges = measured(model, samples)
    plan = plan_precision(model, ranges, CPU)
    found = sensitivity(model, ranges, plan, CPU, samples, threads=1)
    ranked = {each.name: each for each in found.nodes}
    assert set(ranked) == {node.node for node in plan.nodes if node.precision == "int8"} >= {"lstm", "MatMul:y"}
    assert 0 < ranked["lstm"].damage < 0.1
    alone = plan_precision(model, ranges, CPU, kept={"MatMul:y": "for this test"})
    made = quantize(model, ranges, alone, CPU, tmp_path / "int8.onnx")
    full, other = (
        np.concatenate([onnxruntime.InferenceSession(m.path).run(None, dict(s.inputs))[0] for s in samples])
        for m in (model, made)
    )
    assert ranked["lstm"].damage == pytest.approx(damage([full], [other]), rel=0.3)
    assert plan_precision(model, ranges, CPU, kept=dict.fromkeys(ranked, "kept")).quantized == 0


def test_few_samples_rank_as_all_do(tmp_path: Path) -> None:
    model, samples = residual_net(tmp_path / "net.onnx"), images(128)
    ranges = measured(model, samples)
    plan = plan_precision(model, ranges, CPU)
    few = sensitivity(model, ranges, plan, CPU, samples, tensors=False)
    whole = sensitivity(model, ranges, plan, CPU, samples, samples=128, tensors=False)
    assert (few.samples, whole.samples) == (8, 128)
    order = [each.name for each in whole.nodes]
    places = np.array([order.index(each.name) for each in few.nodes])
    assert np.corrcoef(places, np.arange(len(places)))[0, 1] >= 0.9


def test_samples_come_from_all_over() -> None:
    def numbers(total: int, count: int | None) -> list[int]:
        data = (Sample({"x": np.array([i])}) for i in range(total))
        return [int(sample.inputs["x"][0]) for sample in spread(data, count)]

    assert numbers(3, None) == [0, 1, 2]
    assert numbers(100, 5)[0] == 0
    assert numbers(100, 5)[-1] >= 90
    assert len(numbers(128, None)) == 8
    assert len(numbers(5000, None)) == 32
    gaps = np.diff(numbers(5000, None))
    assert gaps.max() <= 2 * gaps.min()


def test_what_a_class_is_chosen_from_is_compared_and_must_be_finite(tmp_path: Path) -> None:
    net = Net()
    pooled = net.node("Flatten", [net.node("GlobalAveragePool", [net.conv("x", "stem", 3, 8)], "mean")], "flat")
    net.node("ArgMax", [pooled], "best", axis=1)
    graph = onnx.helper.make_graph(
        net.nodes,
        "net",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, IMAGE["x"])],
        [onnx.helper.make_tensor_value_info("best", onnx.TensorProto.INT64, ("batch", 1))],
        [onnx.numpy_helper.from_array(values, name) for name, values in net.constants.items()],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), tmp_path / "m.onnx")
    model, samples = read_model(tmp_path / "m.onnx"), images(4)
    ranges = measured(model, samples)
    found = sensitivity(model, ranges, plan_precision(model, ranges, CPU), CPU, samples)
    assert found.outputs == ("flat",), "in place of the class, what it is chosen from"
    samples[2].inputs["x"][:] = np.inf  # type: ignore[index]
    with pytest.raises(DataError, match="NaN or infinity in 'flat'"):
        sensitivity(model, ranges, plan_precision(model, ranges, CPU), CPU, samples)
