"""Scales move between layers, and the float model computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from float_graphs import IMAGE, Net, images, residual_net, run, with_fixed_batch
from trtcompress_calibration.equalize.equalize import equalize, find_junctions
from trtcompress_calibration.equalize.scales import FURTHEST, METHODS
from trtcompress_calibration.samples import Sample
from trtcompress_graph.errors import DataError, UsageError
from trtcompress_graph.model import Model

TOLERANCE = 1e-5
WORDS = 12


def spread(net: Net, name: str, seed: int = 0) -> None:
    """Make the output channels of a layer very unlike."""
    factors = np.exp(np.random.default_rng(seed).normal(size=len(net.constants[f"{name}.bias"])) * 1.5)
    weight = net.constants[f"{name}.weight"]
    axis = 0 if weight.ndim == 4 else 1
    net.constants[f"{name}.weight"] = (
        weight * factors.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    ).astype(np.float32)
    net.constants[f"{name}.bias"] = (net.constants[f"{name}.bias"] * factors).astype(np.float32)


def inverted(path: Path, cap: float = 6.0, activation: str = "Clip") -> Model:
    """Inverted residual blocks as in MobileNetV2: expand, depthwise, project, with a shortcut."""
    net = Net()
    bounds = [net.constant("zero", 0.0), net.constant("cap", cap)] if activation == "Clip" else []
    x = net.conv("x", "stem", 3, 8)
    for block in "ab":
        inner = net.node(activation, [net.conv(x, f"{block}1", 8, 24, 1), *bounds], f"{block}1_act")
        inner = net.node(activation, [net.conv(inner, f"{block}2", 24, 24, group=24), *bounds], f"{block}2_act")
        spread(net, f"{block}1", 1)
        spread(net, f"{block}2", 2)
        x = net.node("Add", [x, net.conv(inner, f"{block}3", 24, 8, 1)], f"{block}_add")
    x = net.node("GlobalAveragePool", [x], "mean")
    net.product("Gemm", net.node("Flatten", [x], "flat"), "logits", 8, 10)
    return net.save(path, IMAGE, {"logits": ("batch", 10)})


def transformer(path: Path, width: int = 16, heads: int = 4) -> Model:
    """A block that normalizes first: LayerNorm, attention, LayerNorm, gated feed-forward."""
    net = Net()
    each = width // heads

    def norm(x: str, name: str) -> str:
        scale = np.exp(net.rng.normal(size=width))
        return net.node(
            "LayerNormalization",
            [x, net.constant(f"{name}.weight", scale), net.constant(f"{name}.bias", net.rng.normal(size=width))],
            name,
        )

    def linear(x: str, name: str, cin: int, cout: int) -> str:
        made = net.product("MatMul", x, f"{name}_product", cin, cout)
        return net.node("Add", [made, net.constant(f"{name}.bias", net.rng.normal(size=cout))], name)

    def split(x: str, name: str, perm: tuple[int, ...]) -> str:
        form = net.constant(f"{name}.form", [0, 0, heads, each], np.int64)
        return net.node("Transpose", [net.node("Reshape", [x, form], f"{name}_4d")], f"{name}_t", perm=perm)

    h = norm("x", "first")
    q, k, v = (linear(h, name, width, width) for name in "qkv")
    scores = net.node("MatMul", [split(q, "q", (0, 2, 1, 3)), split(k, "k", (0, 2, 3, 1))], "scores")
    mixed = net.node("MatMul", [net.node("Softmax", [scores], "softmax"), split(v, "v", (0, 2, 1, 3))], "mixed")
    back = net.node("Transpose", [mixed], "back", perm=(0, 2, 1, 3))
    merged = net.node("Reshape", [back, net.constant("flat", [0, 0, width], np.int64)], "merged")
    x = net.node("Add", ["x", linear(merged, "o", width, width)], "middle")
    h = norm(x, "second")
    gate = net.node("Sigmoid", [linear(h, "gate", width, 2 * width)], "gate_act")
    gated = net.node("Mul", [linear(h, "up", width, 2 * width), gate], "gated")
    net.node("Add", [x, linear(gated, "down", 2 * width, width)], "y")
    shape = ("batch", "length", width)
    return net.save(path, {"x": shape}, {"y": shape})


def sentences(count: int) -> list[Sample]:
    return images(count, (WORDS, 16))


def junction_names(model: Model, samples: list[Sample]) -> list[str]:
    return [junction.name for junction in find_junctions(model, samples)[1]]


GRAPHS = {"inverted": inverted, "residual": residual_net, "transformer": transformer}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_the_float_model_computes_the_same(tmp_path, graph, method):
    model = GRAPHS[graph](tmp_path / "m.onnx")
    samples = sentences(8) if graph == "transformer" else images(8)
    made, moved = equalize(model, samples, method, tmp_path / "e.onnx")
    before, after = run(model.path, samples), run(made.path, samples)
    assert moved
    assert np.abs(after - before).max() <= TOLERANCE * np.abs(before).max()


def test_a_model_of_a_fixed_batch_takes_samples_one_by_one(tmp_path):
    model, samples = with_fixed_batch(residual_net(tmp_path / "m.onnx"), 4), images(8)
    assert junction_names(model, samples) == junction_names(residual_net(tmp_path / "open.onnx"), samples)
    _, moved = equalize(model, samples, "smooth", tmp_path / "e.onnx")
    assert moved


def test_names_and_shapes_stay(tmp_path):
    model = inverted(tmp_path / "m.onnx")
    made, _ = equalize(model, images(4), "smooth", tmp_path / "e.onnx")
    one, two = onnx.load(model.path).graph, onnx.load(made.path).graph
    assert [(n.name, n.input, n.output) for n in one.node] == [(n.name, n.input, n.output) for n in two.node]
    assert {(t.name, *t.dims) for t in one.initializer} == {(t.name, *t.dims) for t in two.initializer}


def test_places_where_scales_can_move(tmp_path):
    assert junction_names(inverted(tmp_path / "m.onnx"), images(1)) == ["a1", "a2", "b1", "b2"]
    assert junction_names(residual_net(tmp_path / "r.onnx"), images(1)) == ["a1", "b1"]
    found = junction_names(transformer(tmp_path / "t.onnx"), sentences(1))
    assert found == ["first", "v_product", "second", "up_product"]


def test_cross_layer_makes_weights_equally_wide(tmp_path):
    model = inverted(tmp_path / "m.onnx", activation="Relu")
    made, _ = equalize(model, images(4), "cross-layer", tmp_path / "e.onnx")
    w = {t.name: numpy_helper.to_array(t) for t in onnx.load(made.path).graph.initializer}
    for one, two in (("a1", "a2"), ("a2", "a3")):
        rows = np.abs(w[f"{one}.weight"]).max(axis=(1, 2, 3))
        columns = np.abs(w[f"{two}.weight"]).max(axis=(1, 2, 3) if two == "a2" else (0, 2, 3))
        np.testing.assert_allclose(rows, columns, rtol=1e-2)


def test_a_channel_that_reaches_its_cap_stays(tmp_path):
    model = inverted(tmp_path / "m.onnx", cap=1.0)
    made, _ = equalize(model, images(8), "smooth", tmp_path / "e.onnx")
    one, two = ({t.name: numpy_helper.to_array(t) for t in onnx.load(m.path).graph.initializer} for m in (model, made))
    kept = np.isclose(one["a1.bias"], two["a1.bias"])
    assert 0 < kept.sum() < len(kept)
    before, after = run(model.path, images(8)), run(made.path, images(8))
    assert np.abs(after - before).max() <= TOLERANCE * np.abs(before).max()


def test_what_is_read_elsewhere_is_left(tmp_path):
    net = Net()
    a = net.node("Relu", [net.conv("x", "a", 3, 8)], "a_act")
    net.node("Add", [net.conv(a, "b", 8, 8), net.node("Sigmoid", [a], "gate")], "y")
    model = net.save(tmp_path / "m.onnx", IMAGE, {"y": ("batch", 8, 16, 16)})
    made, moved = equalize(model, images(2), "cross-layer", tmp_path / "e.onnx")
    assert moved == ()
    assert made.digest == model.digest


def test_refusals(tmp_path):
    model = inverted(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="no method 'sideways'"):
        equalize(model, images(1), "sideways", tmp_path / "e.onnx")
    with pytest.raises(DataError, match="no samples"):
        equalize(model, [], "smooth", tmp_path / "e.onnx")
    assert not (tmp_path / "e.onnx").exists()


OPERATORS = st.sampled_from(["Relu", "LeakyRelu", "PRelu", "Clip", "MaxPool", "Sigmoid", "Identity", "Add", "Mul"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operators=st.lists(st.lists(OPERATORS, max_size=3), min_size=2, max_size=4), seed=st.integers(0, 9))
def test_random_graphs_compute_the_same(tmp_path, operators, seed):
    net = Net()
    net.rng = np.random.default_rng(seed)
    net.constant("zero", 0.0)
    net.constant("cap", 2.0)
    x, width = "x", 3
    for layer, acts in enumerate(operators):
        depthwise = layer % 2 == 1
        x = net.conv(x, f"c{layer}", width, 6, group=6 if depthwise and width == 6 else 1)
        spread(net, f"c{layer}", seed)
        width = 6
        for place, op in enumerate(acts):
            more = {
                "PRelu": [net.constant(f"slope{layer}{place}", net.rng.uniform(size=(6, 1, 1)))],
                "Clip": ["zero", "cap"],
                "Add": [x],
                "Mul": [net.node("Abs", [x], f"abs{layer}{place}")] if op == "Mul" else [],
            }.get(op, [])
            pool = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]} if op == "MaxPool" else {}
            x = net.node(op, [x, *more], f"t{layer}{place}", **pool)
    x = net.node("GlobalAveragePool", [x], "mean")
    net.product("Gemm", net.node("Flatten", [x], "flat"), "y", 6, 4)
    model = net.save(tmp_path / "m.onnx", IMAGE, {"y": ("batch", 4)})
    samples = images(3, seed=seed)
    before = run(model.path, samples)
    assume(np.abs(before).max() < 1e12)  # a chain of squares overflows by itself; NaN is not below either
    for method in METHODS:
        made, moved = equalize(model, samples, method, tmp_path / "e.onnx")
        assert all(1 / FURTHEST * 0.99 <= m.least <= m.greatest <= FURTHEST * 1.01 for m in moved)
        assert np.abs(run(made.path, samples) - before).max() <= TOLERANCE * max(1e-3, np.abs(before).max())


def test_what_a_subgraph_reads_is_left(tmp_path):
    net = Net()
    a = net.node("Relu", [net.conv("x", "a", 3, 8)], "a_act")
    b = net.conv(a, "b", 8, 8)
    branch = helper.make_graph(
        [helper.make_node("Identity", [a], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)],
    )
    net.constants["yes"] = np.asarray(True)
    net.node("Add", [b, net.node("If", ["yes"], "chosen", then_branch=branch, else_branch=branch)], "y")
    model = net.save(tmp_path / "m.onnx", IMAGE, {"y": ("batch", 8, 16, 16)})
    assert junction_names(model, images(1)) == []
