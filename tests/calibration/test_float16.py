"""Float16 in the graph: where casts stand, what stays float32, and that nothing overflows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from float_graphs import IMAGE, Net, cosine, images, kinds, measured, residual_net, run
from trtcompress_calibration.float16 import to_half
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.samples import Sample
from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_engines.encodings import encodings
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.model import Model

FP16 = encodings()["trt-fp16"]
ROWS = {"x": ("rows", 64)}


def written(model: Model, samples: list[Sample], out: Path) -> tuple[Model, dict[str, str]]:
    """The graph, and the reason of each node that stays float32."""
    ranges = measured(model, samples)
    plan = plan_precision(model, ranges, FP16)
    return quantize(model, ranges, plan, FP16, out), {p.node: p.reason for p in plan.nodes if p.precision == "float32"}


def rows(count: int, scale: float = 1.0, outlier: float = 1.0) -> list[Sample]:
    rng = np.random.default_rng(0)
    made = (rng.normal(size=(count, 1, 64)) * scale).astype(np.float32)
    made[:, :, 7] *= outlier
    return [Sample({"x": row}) for row in made]


def dtypes(path: Path) -> dict[str, int]:
    graph = onnx.load(path).graph
    held = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return held | {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}


def test_a_net_needs_one_cast_in_and_one_out(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    half, kept = written(model, images(4), tmp_path / "half.onnx")
    assert kept == {}
    assert kinds(half.path) == kinds(model.path) + type(kinds(model.path))({"Cast": 2})
    assert (half.inputs, half.outputs) == (model.inputs, model.outputs)
    held = dtypes(half.path)
    assert held["x"] == held["logits"] == TensorProto.FLOAT
    assert held["stem.weight"] == held["stem.bias"] == held["a1_relu"] == TensorProto.FLOAT16
    assert half.path.stat().st_size < model.path.stat().st_size * 0.6
    samples = images(4, seed=2)
    assert cosine(run(half.path, samples), run(model.path, samples)) > 0.99999


def test_what_overflows_stays_float32_with_casts_at_its_border_only(tmp_path: Path) -> None:
    net = Net()
    x = net.product("MatMul", "x", "a", 64, 64)
    x = net.node("Mul", [x, net.constant("big", 3e4)], "scaled")
    x = net.node("Reshape", [x, net.constant("shape", [0, 8, 8], np.int64)], "split")
    x = net.node("ReduceMean", [x, net.constant("axis", [2], np.int64)], "mean", keepdims=0)
    x = net.node("Mul", [x, net.constant("small", 1 / 3e4)], "restored")
    model = net.save(tmp_path / "net.onnx", ROWS, {net.product("MatMul", x, "out", 8, 4): ("rows", 4)})
    half, kept = written(model, rows(8), tmp_path / "half.onnx")
    assert set(kept) == {"Mul:scaled", "Reshape:split", "ReduceMean:mean", "Mul:restored"}
    assert kept["Mul:scaled"].startswith("FP16 would overflow: tensor 'scaled' reaches")
    assert kinds(half.path)["Cast"] == 4
    assert cosine(run(half.path, rows(8)), run(model.path, rows(8))) > 0.9999


def layer_norm(net: Net, x: str, name: str, epsilon: float = 1e-12) -> str:
    """LayerNorm written out, as older exporters do."""
    axis = net.constant(f"{name}.axis", [-1], np.int64)
    centred = net.node("Sub", [x, net.node("ReduceMean", [x, axis], f"{name}_mean")], f"{name}_centred")
    squares = net.node("Pow", [centred, net.constant(f"{name}.two", 2.0)], f"{name}_squares")
    variance = net.node("ReduceMean", [squares, axis], f"{name}_variance")
    guarded = net.node("Add", [variance, net.constant(f"{name}.epsilon", epsilon)], f"{name}_guarded")
    return net.node("Div", [centred, net.node("Sqrt", [guarded], f"{name}_deviation")], name)


def test_an_epsilon_that_vanishes_keeps_its_division_in_float32(tmp_path: Path) -> None:
    net = Net()
    model = net.save(tmp_path / "net.onnx", ROWS, {layer_norm(net, "x", "norm"): ("rows", 64)})
    still = [Sample({"x": np.full((1, 64), 0.5, np.float32)})]
    half, kept = written(model, [*rows(4), *still], tmp_path / "half.onnx")
    assert {"Add:norm_guarded", "Sqrt:norm_deviation", "Div:norm"} <= set(kept)
    assert np.isfinite(run(half.path, still)).all()


def test_squares_of_outliers_stay_float32(tmp_path: Path) -> None:
    net = Net()
    x = net.product("MatMul", layer_norm(net, "x", "first", 1e-5), "a", 64, 64)
    model = net.save(tmp_path / "net.onnx", ROWS, {layer_norm(net, x, "second", 1e-5): ("rows", 64)})
    samples = rows(8, outlier=3000.0)
    half, kept = written(model, samples, tmp_path / "half.onnx")
    assert "Pow:first_squares" in kept
    assert not any("second" in name for name in kept)
    found = run(half.path, samples)
    assert np.isfinite(found).all()
    assert cosine(found, run(model.path, samples)) > 0.999


@pytest.mark.parametrize(("amax", "stays"), [(20.0, False), (1500.0, True)])
def test_layer_normalization_by_the_square_of_its_input(tmp_path: Path, amax: float, stays: bool) -> None:
    net = Net()
    inputs = ["x", net.constant("gain", np.ones(64)), net.constant("shift", np.zeros(64))]
    model = net.save(tmp_path / "net.onnx", ROWS, {net.node("LayerNormalization", inputs, "y"): ("rows", 64)})
    _, kept = written(model, rows(8, outlier=amax), tmp_path / "half.onnx")
    assert ("LayerNormalization:y" in kept) is stays


@pytest.mark.parametrize("least", [-1.7e38, -1e9])
def test_masks_become_finite_and_stay_float16(tmp_path: Path, least: float) -> None:
    """Two masks on one score, as a causal and a padding mask are."""
    net = Net()
    scores = net.product("MatMul", "x", "scores", 64, 64)
    hidden = net.node("Less", [scores, net.constant("zero", 0.0)], "hidden")
    floats = net.node("Cast", [hidden], "floats", to=TensorProto.FLOAT)
    product = net.node("Mul", [floats, net.constant("least", least)], "product")
    chosen = net.node("Where", [hidden, net.constant("least2", least), net.constant("none", 0.0)], "chosen")
    masked = net.node("Add", [net.node("Add", [scores, product], "once"), chosen], "twice")
    model = net.save(tmp_path / "net.onnx", ROWS, {net.node("Softmax", [masked], "y"): ("rows", 64)})
    ranges = measured(model, rows(8))
    plan = plan_precision(model, ranges, FP16)
    assert [p.node for p in plan.nodes if p.precision == "float32"] == []
    half = quantize(model, ranges, plan, FP16, tmp_path / "half.onnx")
    everything = [*rows(8), Sample({"x": np.zeros((1, 64), np.float32)})]
    found, expected = run(half.path, everything), run(model.path, everything)
    assert np.isfinite(found).all()
    assert cosine(found[:-1], expected[:-1]) > 0.999


@pytest.mark.parametrize("op", ["Div", "MatMul"])
def test_a_huge_constant_that_is_a_number_stays_float32(tmp_path: Path, op: str) -> None:
    net = Net()
    net.constants["huge"] = np.float32(1e7) if op == "Div" else np.diag(np.full(64, 1e7, np.float32))
    net.node("Relu", [net.node(op, ["x", "huge"], "scaled")], "y")
    model = net.save(tmp_path / "net.onnx", ROWS, {"y": ("rows", 64)})
    samples = rows(4, 1e4 if op == "Div" else 1e-5)
    half, kept = written(model, samples, tmp_path / "half.onnx")
    assert kept[f"{op}:scaled"] == "constant 'huge' does not fit into FP16"
    np.testing.assert_allclose(run(half.path, samples), run(model.path, samples), rtol=2e-3, atol=1e-7)


def test_operators_that_want_float32_get_it(tmp_path: Path) -> None:
    net = Net()
    x = net.conv("x", "a", 3, 4)
    scales = net.constant("scales", [1, 1, 2, 2])
    x = net.node("Resize", [x, "", scales], "large", mode="nearest")
    size = net.node("Cast", [net.node("Shape", [x], "sizes", start=2, end=3)], "size", to=TensorProto.FLOAT)
    side = net.node("Squeeze", [size], "side")
    steps = net.node("Range", [net.constant("from", 0.0), side, net.constant("by", 1.0)], "steps")
    x = net.node("Add", [x, steps], "shifted")
    wide = {"x": ("batch", 3, "height", "width")}
    model = net.save(tmp_path / "net.onnx", wide, {net.conv(x, "b", 4, 2): ("batch", 2, "h2", "w2")})
    half, kept = written(model, images(2), tmp_path / "half.onnx")
    assert kept["Range:steps"] == "Range is not defined for FP16"
    assert kept["Cast:size"] == "it computes a shape"
    assert dtypes(half.path)["scales"] == TensorProto.FLOAT
    assert dtypes(half.path)["large"] == TensorProto.FLOAT16
    assert cosine(run(half.path, images(2)), run(model.path, images(2))) > 0.9999
    card = resolve_target("rtx-4090")
    profiles = {"x": ((1, 3, 16, 16), (2, 3, 16, 16), (4, 3, 16, 16))}
    assert backend_for(card).compile(half, card, "trt-fp16", CompileOptions(profiles), tmp_path / "engine").built


def test_large_integers_and_lost_tensors_stay_float32(tmp_path: Path) -> None:
    net = Net()
    whole = net.node("Cast", [net.node("Mul", ["x", net.constant("k", 5000.0)], "big")], "whole", to=TensorProto.INT64)
    back = net.node("Cast", [whole], "back", to=TensorProto.FLOAT)
    tiny = net.node("Mul", [net.node("Tanh", ["x"], "t"), net.constant("c", 1e-6)], "tiny")
    y = net.node("Add", [net.node("Mul", [back, net.constant("k2", 1e-4)], "rescaled"), tiny], "y")
    model = net.save(tmp_path / "net.onnx", ROWS, {y: ("rows", 64)})
    _, kept = written(model, rows(4), tmp_path / "half.onnx")
    assert "not exact in FP16" in kept["Cast:back"]
    assert "would lose tensor 'tiny'" in kept["Mul:tiny"]


def test_subgraphs_read_and_write_float32(tmp_path: Path) -> None:
    net = Net()
    x = net.conv("x", "a", 3, 4)
    inner = {
        branch: helper.make_graph(
            [helper.make_node("Mul", [x, "a.shared"], [f"{branch}_out"])],
            branch,
            [],
            [helper.make_tensor_value_info(f"{branch}_out", TensorProto.FLOAT, None)],
        )
        for branch in ("then_branch", "else_branch")
    }
    shared = net.constant("a.shared", 0.5)
    total = net.node("ReduceSum", [net.node("Mul", [x, shared], "m")], "total", keepdims=0)
    net.node("If", [net.node("Greater", [total, net.constant("zero", 0.0)], "test")], "branched", **inner)
    model = net.save(tmp_path / "net.onnx", IMAGE, {net.conv("branched", "b", 4, 2): ("batch", 2, 16, 16)})
    half, kept = written(model, images(2), tmp_path / "half.onnx")
    assert kept["If:branched"] == "it holds a subgraph"
    held = {t.name: numpy_helper.to_array(t).dtype for t in onnx.load(half.path).graph.initializer}
    assert (held["a.shared"], held["a.shared_float16"]) == (np.float32, np.float16)
    assert cosine(run(half.path, images(2)), run(model.path, images(2))) > 0.9999


def test_a_tensor_that_is_an_output_and_read_inside(tmp_path: Path) -> None:
    net = Net()
    x = net.conv("x", "a", 3, 4)
    outputs = {net.conv(x, "b", 4, 2): ("batch", 2, 16, 16), x: ("batch", 4, 16, 16)}
    model = net.save(tmp_path / "net.onnx", IMAGE, outputs)
    half, _ = written(model, images(2), tmp_path / "half.onnx")
    assert half.outputs == model.outputs
    assert kinds(half.path)["Cast"] == 3


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_to_half_keeps_signs_and_is_finite_where_it_was(values: list[float]) -> None:
    wide = np.asarray(values, np.float32)
    half = to_half(wide, 32768.0)
    assert (np.isfinite(half) == (np.isfinite(wide))).all()
    assert (np.sign(half) * np.sign(wide) >= 0).all()
    inside = np.abs(wide) <= 65504
    np.testing.assert_array_equal(half[inside], wide[inside].astype(np.float16))
