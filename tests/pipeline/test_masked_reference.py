"""The masked reference against numpy, on graphs of one statistic each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper

from onnx_models import model, value
from zoo import masked

Array = NDArray[Any]

WIDTH = 6
ALIVE = np.array([True, False, True, True, False, True])
X = np.random.default_rng(0).standard_normal((3, WIDTH, 4)).astype(np.float32)
KEPT = X[:, ALIVE]


def run(proto: onnx.ModelProto, **feeds: Array) -> list[Array]:
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    answers: list[Array] = ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds)
    return answers


def reference(
    node: onnx.NodeProto, weights: Mapping[str, Array], axis: int, output: tuple[int, ...]
) -> onnx.ModelProto:
    """`y = node(x * one)`, with dead channels along an axis of the product, and of `y` where it still has them."""
    held = {"one": np.ones(1, np.float32), **weights}
    multiply = helper.make_node("Mul", ["x", "one"], ["h"], name="mul")
    shape = (3, WIDTH, 4) if axis == 1 else (3, 4, WIDTH)
    outputs = [value("y", [None] * len(output))]
    graph = model([multiply, node], [value("x", ["n", *shape[1:]])], outputs, held, opset=21)

    def mask(name: str, _: tuple[int, ...]) -> NDArray[np.bool_] | None:
        alive = ALIVE.reshape([-1 if i == axis else 1 for i in range(3)])
        return alive if name == "h" or (name == "y" and len(output) == 3 and output[axis] == WIDTH) else None

    return masked(graph, {"h": shape, "y": output}, mask)


def reduced(op: str, keepdims: int) -> Array:
    node = helper.make_node(op, ["h", "axes"], ["y"], name="n", keepdims=keepdims)
    output = (3, 1, 4) if keepdims else (3, 4)
    return run(reference(node, {"axes": np.array([1])}, 1, output), x=X)[0]


REDUCTIONS: dict[str, Callable[..., Array]] = {
    "ReduceMean": np.mean,
    "ReduceSum": np.sum,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceL1": lambda a, **how: np.abs(a).sum(**how),
    "ReduceL2": lambda a, **how: np.sqrt((a * a).sum(**how)),
    "ReduceSumSquare": lambda a, **how: (a * a).sum(**how),
    "ReduceLogSumExp": lambda a, **how: np.log(np.exp(a).sum(**how)),
}


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions_are_those_of_what_is_alive(op: str, keepdims: int) -> None:
    expected = REDUCTIONS[op](KEPT, axis=1, keepdims=bool(keepdims))
    np.testing.assert_allclose(reduced(op, keepdims), expected, rtol=1e-5, atol=1e-6)


def test_a_mean_over_channels_and_places() -> None:
    node = helper.make_node("ReduceMean", ["h"], ["y"], name="n", keepdims=1)
    given = run(reference(node, {}, 1, (1, 1, 1)), x=X)[0]
    np.testing.assert_allclose(given, KEPT.mean(keepdims=True), rtol=1e-5)


def softmax(a: Array) -> Array:
    shares = np.exp(a - a.max(1, keepdims=True))
    return np.asarray(shares / shares.sum(1, keepdims=True))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_a_softmax_gives_nothing_to_what_is_dead(op: str) -> None:
    given = run(reference(helper.make_node(op, ["h"], ["y"], name="n", axis=1), {}, 1, (3, WIDTH, 4)), x=X)[0]
    expected = softmax(KEPT) if op == "Softmax" else np.log(softmax(KEPT))
    np.testing.assert_allclose(given[:, ALIVE], expected, rtol=1e-5)
    assert not given[:, ~ALIVE].any()


def standardized(a: Array, axes: tuple[int, ...]) -> Array:
    apart = a - a.mean(axes, keepdims=True)
    return np.asarray(apart / np.sqrt((apart * apart).mean(axes, keepdims=True) + 1e-5))


SCALE = np.linspace(0.5, 1.5, WIDTH, dtype=np.float32)
SHIFT = np.linspace(-1, 1, WIDTH, dtype=np.float32)


def test_layer_norm() -> None:
    node = helper.make_node("LayerNormalization", ["h", "scale", "shift"], ["y"], name="n")
    turned = X.transpose(0, 2, 1)
    given = run(reference(node, {"scale": SCALE, "shift": SHIFT}, 2, (3, 4, WIDTH)), x=turned)[0]
    expected = standardized(turned[..., ALIVE], (2,)) * SCALE[ALIVE] + SHIFT[ALIVE]
    np.testing.assert_allclose(given[..., ALIVE], expected, rtol=1e-4, atol=1e-5)
    assert not given[..., ~ALIVE].any()


def test_instance_norm_over_an_axis_with_dead_places() -> None:
    node = helper.make_node("InstanceNormalization", ["h", "scale", "shift"], ["y"], name="n")
    turned = X.transpose(0, 2, 1)
    weights = {"scale": SCALE[:4], "shift": SHIFT[:4]}
    given = run(reference(node, weights, 2, (3, 4, WIDTH)), x=turned)[0]
    expected = standardized(turned[..., ALIVE], (2,)) * SCALE[:4, None] + SHIFT[:4, None]
    np.testing.assert_allclose(given[..., ALIVE], expected, rtol=1e-4, atol=1e-5)


def test_group_norm_takes_the_statistics_of_each_group() -> None:
    node = helper.make_node("GroupNormalization", ["h", "scale", "shift"], ["y"], name="n", num_groups=2)
    given = run(reference(node, {"scale": SCALE, "shift": SHIFT}, 1, (3, WIDTH, 4)), x=X)[0]
    alive = [np.flatnonzero(ALIVE[:3]), 3 + np.flatnonzero(ALIVE[3:])]
    for channels in alive:
        expected = standardized(X[:, channels], (1, 2)) * SCALE[channels, None] + SHIFT[channels, None]
        np.testing.assert_allclose(given[:, channels], expected, rtol=1e-4, atol=1e-5)


def test_dead_rows_do_not_spread_what_is_not_a_number() -> None:
    """A dead row divided by its norm is 0/0: it counts as zero."""
    nodes = [
        helper.make_node("Mul", ["x", "one"], ["h"], name="mul"),
        helper.make_node("ReduceL2", ["h", "axes"], ["norm"], name="norm"),
        helper.make_node("Div", ["h", "norm"], ["unit"], name="div"),
        helper.make_node("ReduceSum", ["unit", "rows"], ["y"], name="sum", keepdims=0),
    ]
    held = {"one": np.ones(1, np.float32), "axes": np.array([2]), "rows": np.array([1])}
    graph = model(nodes, [value("x", ["n", WIDTH, 4])], [value("y", ["n", 4])], held, opset=18)
    shapes = {"h": (3, WIDTH, 4), "norm": (3, WIDTH, 1), "unit": (3, WIDTH, 4), "y": (3, 4)}
    reference = masked(graph, shapes, lambda name, shape: None if name == "y" else ALIVE[:, None])
    expected = (KEPT / np.linalg.norm(KEPT, axis=2, keepdims=True)).sum(1)
    np.testing.assert_allclose(run(reference, x=X)[0], expected, rtol=1e-5)


def test_weights_and_activations_are_zero_where_dead_at_any_batch() -> None:
    rng = np.random.default_rng(1)
    weight, bias = rng.standard_normal((4, WIDTH)).astype(np.float32), rng.standard_normal(WIDTH).astype(np.float32)
    last = rng.standard_normal((WIDTH, 2)).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="first"),
        helper.make_node("Exp", ["h"], ["e"], name="exp"),
        helper.make_node("MatMul", ["e", "last"], ["y"], name="last"),
    ]
    graph = model(nodes, [value("x", ["n", 4])], [value("y", ["n", 2])], {"w": weight, "b": bias, "last": last})
    shapes = {"w": (4, WIDTH), "b": (WIDTH,), "h": (3, WIDTH), "e": (3, WIDTH), "last": (WIDTH, 2), "y": (3, 2)}
    axes = {"w": ALIVE, "b": ALIVE, "h": ALIVE, "e": ALIVE, "last": ALIVE[:, None]}
    reference = masked(graph, shapes, lambda name, shape: axes.get(name))
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in reference.graph.initializer}
    assert not held["w"][:, ~ALIVE].any()
    assert not held["last"][~ALIVE].any()
    x = rng.standard_normal((5, 4)).astype(np.float32)
    expected = np.exp(x @ weight[:, ALIVE] + bias[ALIVE]) @ last[ALIVE]
    np.testing.assert_allclose(run(reference, x=x)[0], expected, rtol=1e-4)
    assert "h/whole" not in {tensor.name for tensor in graph.graph.value_info}
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(graph.graph.initializer[0]), weight)


def test_nothing_is_written_where_all_is_alive() -> None:
    graph = model([helper.make_node("Softmax", ["x"], ["y"], name="n")], [value("x", [2, 3])], [value("y", [2, 3])], {})
    reference = masked(graph, {"x": (2, 3), "y": (2, 3)}, lambda name, shape: np.ones(shape, bool))
    assert reference == graph
