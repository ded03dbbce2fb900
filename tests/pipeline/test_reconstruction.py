"""Layers as rows, streamed moments, and solving the layers of a cut graph anew."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from onnx_models import model, run, save, value
from trtcompress.pruning.coupling import Coupling, analyse
from trtcompress.pruning.cut import Cut
from trtcompress.pruning.reconstruction import reconstruct
from trtcompress.pruning.repair import best_step, repaired
from trtcompress.pruning.surgery import apply_cut
from trtcompress_calibration.gram import Gram, collect_grams
from trtcompress_calibration.layers import linear_layers
from trtcompress_calibration.samples import Sample
from trtcompress_graph.load import load_ir, read_model, save_ir
from trtcompress_graph.model import Model
from trtcompress_graph.shapes import tensor_shapes

Array = NDArray[Any]
RNG = np.random.default_rng(0)


def weights(*shape: int) -> Array:
    return (np.random.default_rng(shape).standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


class Data:
    """Samples of one input, made as they are read; smooth in space, so that channels are alike as in images."""

    def __init__(self, count: int, shape: tuple[int, ...], seed: int = 0) -> None:
        self.total, self._shape, self._seed = count, shape, seed
        self.mixing = np.random.default_rng(99).standard_normal((shape[0], shape[0]))

    def __iter__(self) -> Iterator[Sample]:
        rng = np.random.default_rng(self._seed)
        for _ in range(self.total):
            x = np.tensordot(self.mixing, rng.standard_normal(self._shape), 1)
            yield Sample({"x": x.astype(np.float32)[None]})

    def array(self) -> Array:
        return np.concatenate([np.asarray(sample.inputs["x"]) for sample in self])


OPERATORS: dict[str, tuple[str, dict[str, object], tuple[int, ...], tuple[int, ...]]] = {
    "1x1": ("Conv", {}, (5, 4, 1, 1), (2, 4, 6, 7)),
    "1x1 with stride": ("Conv", {"strides": [2, 2]}, (5, 4, 1, 1), (2, 4, 6, 7)),
    "3x3": ("Conv", {"pads": [1, 1, 1, 1]}, (5, 4, 3, 3), (2, 4, 6, 7)),
    "uneven pads, stride, dilation": (
        "Conv",
        {"pads": [0, 1, 2, 0], "strides": [2, 1], "dilations": [1, 2]},
        (5, 4, 3, 2),
        (2, 4, 9, 8),
    ),
    "one axis": ("Conv", {"pads": [1, 1], "strides": [2]}, (5, 4, 3), (2, 4, 9)),
    "depthwise": ("Conv", {"pads": [1, 1, 1, 1], "strides": [2, 2], "group": 4}, (4, 1, 3, 3), (2, 4, 7, 8)),
    "depthwise dilated": ("Conv", {"dilations": [2, 2], "group": 4}, (4, 1, 3, 3), (2, 4, 7, 8)),
    "gemm": ("Gemm", {}, (6, 5), (3, 6)),
    "gemm transposed": ("Gemm", {"transB": 1}, (5, 6), (3, 6)),
    "matmul": ("MatMul", {}, (6, 5), (3, 4, 6)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_rows_times_matrix_is_the_operator(name: str, tmp_path: Path) -> None:
    op, attributes, shape, source = OPERATORS[name]
    x, weight = RNG.standard_normal(source).astype(np.float32), weights(*shape)
    bias = weights(len(weight) if op == "Conv" or "transB" in attributes else shape[-1])
    if op == "MatMul":
        nodes = [
            helper.make_node(op, ["x", "w"], ["h"], name="n"),
            helper.make_node("Add", ["b", "h"], ["y"], name="add"),
        ]
    else:
        nodes = [helper.make_node(op, ["x", "w", "b"], ["y"], name="n", **attributes)]
    rank = len(source)
    proto = model(nodes, [value("x", source)], [value("y", [None] * rank)], {"w": weight, "b": bias}, opset=20)
    full = read_model(save(proto, tmp_path / "m.onnx"))
    expected = run(full.path, {"x": x})[0]
    (layer,) = linear_layers(load_ir(full).graph, tensor_shapes(full, {"x": source}))
    assert (layer.weight, layer.bias, layer.y) == ("w", "b", "y")
    rows, matrix = layer.rows(x), layer.matrix(weight)
    assert len(rows) == layer.count(source)
    if layer.kind == "depthwise":
        got = np.einsum("nck,kc->nc", rows.reshape(len(rows), -1, layer.window), matrix)
    else:
        got = rows @ matrix
    outputs = layer.outputs(expected)
    np.testing.assert_allclose(got + bias, outputs, rtol=0, atol=2e-5)
    places = np.array([0, len(rows) - 1])
    np.testing.assert_array_equal(layer.rows(x, places), rows[places])
    np.testing.assert_array_equal(layer.outputs(expected, places), outputs[places])
    np.testing.assert_array_equal(layer.stored(matrix, weight), weight)


@given(cuts=st.lists(st.integers(0, 60), max_size=5), free=st.booleans())
@settings(max_examples=30, deadline=None)
def test_moments_do_not_depend_on_batches(cuts: list[int], free: bool) -> None:
    rng = np.random.default_rng(5)
    rows, targets = rng.normal(1, 2, (60, 7)).astype(np.float32), rng.normal(size=(60, 3)).astype(np.float32)
    streamed, halves = Gram(), (Gram(), Gram())
    edges = sorted({0, 60, *cuts})
    for turn, (start, stop) in enumerate(pairwise(edges)):
        streamed.add(rows[start:stop], targets[start:stop] if free else None)
        halves[turn % 2].add(rows[start:stop], targets[start:stop] if free else None)
    both = halves[0] + halves[1]
    for gram in (streamed, both):
        assert gram.count == 60
        np.testing.assert_allclose(gram.mean, rows.mean(0), atol=1e-5)
        np.testing.assert_allclose(gram.covariance, np.cov(rows.T, bias=True), atol=1e-4)
        if free:
            cross = (rows - rows.mean(0)).T @ (targets - targets.mean(0)) / 60
            np.testing.assert_allclose(gram.cross_covariance, cross, atol=1e-4)


def network(tmp_path: Path, redundant: bool = False) -> Model:
    """Two residual blocks of the inverted kind and a classifier, with seeded weights."""
    held: dict[str, Array] = {"low": np.float32(0), "high": np.float32(2)}
    nodes = []

    def conv(name: str, source: str, shape: tuple[int, ...], act: str | None, **attributes: object) -> str:
        held[f"{name}.w"], held[f"{name}.b"] = weights(*shape), 0.1 * weights(shape[0])
        nodes.append(
            helper.make_node("Conv", [source, f"{name}.w", f"{name}.b"], [f"{name}.y"], name=name, **attributes)
        )
        if act is None:
            return f"{name}.y"
        bounds = ["low", "high"] if act == "Clip" else []
        nodes.append(helper.make_node(act, [f"{name}.y", *bounds], [f"{name}.a"], name=f"{name}.act"))
        return f"{name}.a"

    h = conv("stem", "x", (12, 6, 3, 3), "Relu", pads=[1] * 4)
    for block in ("one", "two"):
        e = conv(f"{block}.expand", h, (32, 12, 1, 1), "Clip")
        d = conv(f"{block}.depth", e, (32, 1, 3, 3), "Relu", pads=[1] * 4, group=32)
        p = conv(f"{block}.project", d, (12, 32, 1, 1), None)
        nodes.append(helper.make_node("Add", [h, p], [f"{block}.out"], name=f"{block}.add"))
        h = f"{block}.out"
        if redundant:
            for kind in ("expand", "depth"):
                for part in ("w", "b"):
                    held[f"{block}.{kind}.{part}"][16:] = held[f"{block}.{kind}.{part}"][:16]
    nodes.append(helper.make_node("GlobalAveragePool", [h], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"))
    nodes.append(helper.make_node("Gemm", ["flat", "fc.w", "fc.b"], ["y"], name="fc"))
    held["fc.w"], held["fc.b"] = weights(12, 5), weights(5)
    proto = model(nodes, [value("x", ["n", 6, 8, 8])], [value("y", ["n", 5])], held, opset=20)
    onnx.checker.check_model(proto, full_check=True)
    return read_model(save(proto, tmp_path / "full.onnx"))


def coupled(full: Model) -> tuple[Coupling, Mapping[str, tuple[int, ...]]]:
    shapes = tensor_shapes(full, {"x": (1, 6, 8, 8)})
    return analyse(load_ir(full).graph, shapes), shapes


def cut_last(full: Model, coupling: Coupling, shapes: Mapping[str, tuple[int, ...]], kept: int) -> tuple[Cut, Model]:
    """Cut the last channels of both expansions."""
    units: list[int] = []
    for group in coupling.groups:
        if group.name.endswith("expand.w"):
            units += [unit for cell in group.cells for unit in cell[kept:]]
    cut = Cut.of(coupling.relations, units)
    graph = load_ir(full)
    apply_cut(graph, coupling, cut, shapes)
    return cut, save_ir(graph, full.path.with_name("pruned.onnx"))


def off(full: Model, other: Model, x: Array) -> float:
    wanted, got = run(full.path, {"x": x})[0], run(other.path, {"x": x})[0]
    return float(np.sqrt(((wanted - got) ** 2).mean() / ((wanted - wanted.mean(0)) ** 2).mean()))


TEST = Data(64, (6, 8, 8), seed=7)


@pytest.mark.parametrize("with_grams", [False, True])
def test_redundant_channels_leave_no_error(tmp_path: Path, with_grams: bool) -> None:
    full = network(tmp_path, redundant=True)
    coupling, shapes = coupled(full)
    cut, pruned = cut_last(full, coupling, shapes, 16)
    data = Data(64, (6, 8, 8))
    layers = [layer for layer in linear_layers(load_ir(full).graph, shapes) if layer.kind != "depthwise"]
    grams = collect_grams(full, layers, data, shapes=shapes) if with_grams else None
    solved = reconstruct(full, pruned, tmp_path / "out.onnx", coupling, cut, data, shapes=shapes, grams=grams)
    assert off(full, pruned, TEST.array()) > 0.05
    wanted, got = run(full.path, {"x": TEST.array()})[0], run(solved.path, {"x": TEST.array()})[0]
    assert np.abs(wanted - got).max() <= 1e-4 * np.abs(wanted).max()


def test_error_falls_on_samples_that_were_not_seen(tmp_path: Path) -> None:
    full = network(tmp_path)
    coupling, shapes = coupled(full)
    cut, pruned = cut_last(full, coupling, shapes, 16)
    seen: list[tuple[int, int | None]] = []
    solved = reconstruct(
        full,
        pruned,
        tmp_path / "out.onnx",
        coupling,
        cut,
        Data(128, (6, 8, 8)),
        shapes=shapes,
        progress=lambda what, done, total: seen.append((done, total)),
    )
    before, after = off(full, pruned, TEST.array()), off(full, solved, TEST.array())
    assert after < before / 4
    total = seen[-1][1]
    assert [done for done, _ in seen] == list(range(total + 1)) if total else False
    names = {tensor.name: tensor.dims for tensor in onnx.load(pruned.path).graph.initializer}
    assert {tensor.name: tensor.dims for tensor in onnx.load(solved.path).graph.initializer} == names


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    full = network(tmp_path)
    coupling, shapes = coupled(full)
    cut, pruned = cut_last(full, coupling, shapes, 24)
    made = [
        reconstruct(full, pruned, tmp_path / f"{i}.onnx", coupling, cut, Data(24, (6, 8, 8)), shapes=shapes)
        for i in range(2)
    ]
    assert made[0].path.read_bytes() == made[1].path.read_bytes() != pruned.path.read_bytes()


def test_moments_of_a_model_are_those_of_all_samples_and_take_no_more_memory(tmp_path: Path) -> None:
    full = network(tmp_path)
    _, shapes = coupled(full)
    layers = [layer for layer in linear_layers(load_ir(full).graph, shapes) if layer.name in ("stem", "one.depth")]
    data = Data(21, (6, 8, 8))
    found = collect_grams(full, layers, data, shapes=shapes)
    rows = layers[0].rows(data.array()).astype(np.float64)
    assert found["stem"].count == 21 * 64
    np.testing.assert_allclose(found["stem"].products, rows.T @ rows, rtol=1e-4, atol=1e-2)
    assert found["one.depth"].products.shape == (32, 9, 9)
    peaks = []
    for count in (512, 2048):
        tracemalloc.start()
        collect_grams(full, layers, Data(count, (6, 8, 8)), shapes=shapes)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_repair_is_least_squares_with_a_bias() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(1, 1, (500, 8)) @ rng.standard_normal((8, 8))
    matrix, kept = rng.standard_normal((8, 4)), np.arange(8) < 5
    gram = Gram()
    gram.add(rows)
    got, shift = repaired(gram, matrix, kept, 1e-12)
    augmented = np.column_stack([rows[:, kept], np.ones(500)])
    expected = np.linalg.lstsq(augmented, rows @ matrix, rcond=None)[0]
    np.testing.assert_allclose(np.vstack([got, shift]), expected, atol=1e-3)


def test_noise_and_nothing_move_no_weights() -> None:
    rng = np.random.default_rng(4)
    halves = (Gram(), Gram())
    for half in halves:
        half.add(np.zeros((50, 4)), np.zeros((50, 2)))
    assert best_step(halves, True) is None
    halves = (Gram(), Gram())
    for half in halves:
        half.add(rng.standard_normal((40, 30)), rng.standard_normal((40, 2)))
    step = best_step(halves, True)
    assert step is None or np.abs(step.matrix).max() < 0.1


def test_layers_that_share_their_weight_are_left(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "w"], ["a"], name="a"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w"], ["b"], name="b"),
        helper.make_node("Add", ["a", "b"], ["y"], name="add"),
    ]
    held = {"first": weights(6, 10), "w": weights(10, 4)}
    proto = model(nodes, [value("x", ["n", 6])], [value("y", ["n", 4])], held, opset=20)
    full = read_model(save(proto, tmp_path / "full.onnx"))
    shapes = tensor_shapes(full, {"x": (1, 6)})
    graph = load_ir(full)
    coupling = analyse(graph.graph, shapes)
    cut = Cut.of(coupling.relations, coupling.groups[0].units[:3])
    apply_cut(graph, coupling, cut, shapes)
    pruned = save_ir(graph, tmp_path / "pruned.onnx")
    data = [Sample({"x": x[None]}) for x in RNG.standard_normal((30, 6)).astype(np.float32)]
    solved = reconstruct(full, pruned, tmp_path / "out.onnx", coupling, cut, data, shapes=shapes)
    assert solved.path.read_bytes() == pruned.path.read_bytes()
