"""What is found to live and die together, in graphs that are small enough to tell it by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from onnx_models import model, save, value
from trtcompress.pruning.coupling import Coupling, analyse
from trtcompress.pruning.cut import Alive, Cut
from trtcompress_graph.axes import AxisRange, input_shapes
from trtcompress_graph.load import load_ir, read_model
from trtcompress_graph.shapes import graph_shapes, infer


class Graph:
    """Nodes and weights; the input `x` and the output `y` are given at the end."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.weights: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(0)

    def node(self, op: str, inputs: str, outputs: str, **attributes) -> Graph:
        made, name = outputs.split(), attributes.pop("name", outputs.split()[0])
        self.nodes.append(helper.make_node(op, inputs.split(), made, name=name, **attributes))
        return self

    def conv(self, name: str, x: str, *shape: int, **attributes) -> Graph:
        self.floats(f"{name}.weight", *shape, 1, 1)
        self.floats(f"{name}.bias", shape[0])
        return self.node("Conv", f"{x} {name}.weight {name}.bias", name, **attributes)

    def product(self, name: str, x: str, *shape: int) -> Graph:
        self.floats(f"{name}.weight", *shape)
        return self.node("MatMul", f"{x} {name}.weight", name)

    def floats(self, name: str, *shape: int) -> Graph:
        self.weights[name] = self.rng.standard_normal(shape).astype(np.float32)
        return self

    def ints(self, name: str, *values: int) -> Graph:
        self.weights[name] = np.array(values, np.int64)
        return self

    def analysed(self, folder: Path, x: list, y: list) -> Coupling:
        proto = model(self.nodes, [value("x", x)], [value("y", y)], self.weights, opset=20)
        read = read_model(save(proto, folder / "m.onnx"))
        loaded = load_ir(read)
        infer(loaded)
        at = input_shapes(read.inputs, {"x": {"batch": AxisRange(1, 2, 3)}} if "batch" in x else {}, "opt")
        self.shapes = graph_shapes(loaded, read, at)
        return analyse(loaded.graph, self.shapes)

    def alive(self, coupling: Coupling, units: tuple[int, ...], name: str) -> list:
        """What lives of a tensor, along the axes along which that differs."""
        mask = Alive(coupling.factors, Cut.of(coupling.relations, units)).mask(name, self.shapes[name])
        assert mask is not None
        return mask.squeeze().astype(int).tolist()


IMAGE, SCORES = ["batch", 3, 4, 4], ["batch", 5, 4, 4]


def names(coupling: Coupling) -> dict[str, tuple[int, ...]]:
    """Groups, with how many units each cell has."""
    return {group.name: tuple(len(cell) for cell in group.cells) for group in coupling.groups}


def test_a_residual_stream_is_one_group(tmp_path):
    graph = Graph().conv("a", "x", 8, 3).conv("b", "a", 6, 8).node("Relu", "b", "c").conv("d", "c", 8, 6)
    found = graph.node("Add", "a d", "e").conv("y", "e", 5, 8).analysed(tmp_path, IMAGE, SCORES)
    assert names(found) == {"a.weight": (8,), "b.weight": (6,)}
    cut = {(name, axis) for name, axis in found.group("a.weight").weights}
    expected = {("a.weight", 0), ("a.bias", 0), ("b.weight", 1), ("d.weight", 0), ("d.bias", 0), ("y.weight", 1)}
    assert cut == expected
    assert {(left.weight, left.axis) for left in found.left} == {("y.weight", 0), ("y.bias", 0)}


def test_labels_stand_behind_one_another_after_a_concat(tmp_path):
    graph = Graph().conv("a", "x", 4, 3).conv("b", "x", 6, 3).node("Concat", "b a", "c", axis=1)
    found = graph.conv("y", "c", 5, 10).analysed(tmp_path, IMAGE, SCORES)
    assert names(found) == {"a.weight": (4,), "b.weight": (6,)}
    second = found.group("a.weight").cells[0][1]
    assert graph.alive(found, (second,), "y.weight") == [1] * 6 + [1, 0, 1, 1]


def test_a_split_tells_which_channel_went_where(tmp_path):
    graph = Graph().conv("a", "x", 10, 3).ints("sizes", 4, 6).node("Split", "a sizes", "s t", axis=1)
    graph.conv("u", "s", 5, 4).conv("v", "t", 5, 6).node("Add", "u v", "y", name="sum")
    found = graph.analysed(tmp_path, IMAGE, SCORES)
    assert names(found) == {"a.weight": (4,), "a.weight#2": (6,)}
    assert graph.alive(found, (found.group("a.weight#2").cells[0][0],), "v.weight") == [0, 1, 1, 1, 1, 1]
    assert graph.alive(found, (found.group("a.weight#2").cells[0][0],), "a.bias") == [1] * 4 + [0] + [1] * 5


def shuffled(graph: Graph, x: str, channels: int, groups: int) -> Graph:
    graph.ints("wide", 0, groups, channels // groups, 4, 4).ints("flat", 0, -1, 4, 4)
    graph.node("Reshape", f"{x} wide", "w").node("Transpose", "w", "t", perm=[0, 2, 1, 3, 4])
    return graph.node("Reshape", "t flat", "shuffled")


def test_a_shuffle_of_halves_is_cut_in_columns(tmp_path):
    graph = shuffled(Graph().conv("a", "x", 8, 3), "a", 8, 2)
    found = graph.conv("y", "shuffled", 5, 8).analysed(tmp_path, IMAGE, SCORES)
    (group,) = found.groups
    assert len(group.units) == 4, "a channel of the first half goes with that of the second half at its place"
    assert graph.alive(found, (group.units[1],), "a.bias") == [1, 0, 1, 1] * 2
    assert graph.alive(found, (group.units[1],), "y.weight") == [1, 1, 0, 0, 1, 1, 1, 1]


def test_hidden_channels_between_shuffled_groups(tmp_path):
    graph = shuffled(Graph().conv("a", "x", 12, 3).conv("b", "a", 8, 6, group=2), "b", 8, 2)
    found = graph.conv("y", "shuffled", 6, 4, group=2).analysed(tmp_path, IMAGE, ["batch", 6, 4, 4])
    assert names(found) == {"a.weight:dims": (6, 6), "b.weight:dims": (2, 2)}
    first, second = found.group("b.weight:dims").cells
    assert graph.alive(found, (first[0], second[1]), "b.bias") == [0, 1, 1, 0] * 2


def test_a_group_of_a_convolution_falls_with_all_its_channels(tmp_path):
    graph = Graph().conv("a", "x", 6, 3).conv("b", "a", 9, 2, group=3)
    found = graph.conv("y", "b", 5, 9).analysed(tmp_path, IMAGE, SCORES)
    assert names(found) == {"a.weight:dims": (2, 2, 2), "a.weight:groups": (3,), "b.weight:dims": (3, 3, 3)}
    unit = found.group("a.weight:groups").units[1]
    assert graph.alive(found, (unit,), "a.bias") == [1, 1, 0, 0, 1, 1]
    assert graph.alive(found, (unit,), "b.bias") == [1, 1, 1, 0, 0, 0, 1, 1, 1]
    both = found.group("a.weight:dims").cells[1]
    assert graph.alive(found, both, "b.bias") == [1, 1, 1, 0, 0, 0, 1, 1, 1], "a group without inputs is gone"


def test_a_depthwise_convolution_passes_channels_on(tmp_path):
    graph = Graph().conv("a", "x", 6, 3).conv("b", "a", 6, 1, group=6).conv("y", "b", 5, 6)
    assert names(graph.analysed(tmp_path, IMAGE, SCORES)) == {"a.weight": (6,)}


WORDS = ["batch", 7, 10]


def grouped_queries(heads: int = 4, shared: int = 2, size: int = 6) -> Graph:
    """Attention in which several heads of queries read one of keys and values."""
    graph = Graph().ints("queries", 0, 0, heads, size).ints("keys", 0, 0, shared, size).ints("two", 2)
    graph.ints("repeat", 1, 1, heads // shared, 1, 1).ints("again", 0, heads, -1, size).ints("flat", 0, 0, heads * size)
    for name, count in (("q", heads), ("k", shared), ("v", shared)):
        graph.product(name, "x", 10, count * size)
        graph.node("Reshape", f"{name} {'queries' if name == 'q' else 'keys'}", f"{name}1")
        graph.node("Transpose", f"{name}1", f"{name}2", perm=[0, 2, 1, 3])
        if name != "q":
            graph.node("Unsqueeze", f"{name}2 two", f"{name}3").node("Expand", f"{name}3 repeat", f"{name}4")
            graph.node("Reshape", f"{name}4 again", f"{name}5")
    graph.node("Transpose", "k5", "turned", perm=[0, 1, 3, 2]).node("MatMul", "q2 turned", "scores")
    graph.node("Softmax", "scores", "shares", axis=-1).node("MatMul", "shares v5", "mixed")
    graph.node("Transpose", "mixed", "m", perm=[0, 2, 1, 3]).node("Reshape", "m flat", "all")
    return graph.product("y", "all", heads * size, 5)


def test_heads_fall_with_those_that_share_their_keys(tmp_path):
    graph = grouped_queries()
    found = graph.analysed(tmp_path, WORDS, ["batch", 7, 5])
    assert names(found) == {"q.weight:heads": (2,), "q.weight:dims": (6, 6), "v.weight:dims": (6, 6)}
    first = found.group("q.weight:heads").units[0]
    assert graph.alive(found, (first,), "q.weight") == [0] * 12 + [1] * 12
    assert graph.alive(found, (first,), "k.weight") == [0] * 6 + [1] * 6
    assert graph.alive(found, (first,), "y.weight") == [0] * 12 + [1] * 12


def test_channels_inside_heads_are_those_of_queries_and_keys(tmp_path):
    graph = grouped_queries()
    found = graph.analysed(tmp_path, WORDS, ["batch", 7, 5])
    cells = found.group("q.weight:dims").cells
    units = (cells[0][2], cells[1][5])
    assert graph.alive(found, units, "k.weight") == [1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    assert graph.alive(found, units, "q.weight") == [1, 1, 0, 1, 1, 1] * 2 + [1, 1, 1, 1, 1, 0] * 2


def test_flattened_places_fall_with_their_channel(tmp_path):
    graph = Graph().conv("a", "x", 4, 3).node("Flatten", "a", "f", axis=1).product("y", "f", 64, 5)
    found = graph.analysed(tmp_path, IMAGE, ["batch", 5])
    (group,) = found.groups
    assert graph.alive(found, (group.units[2],), "y.weight") == [1] * 32 + [0] * 16 + [1] * 16


def test_statistics_over_a_cut_axis_are_told(tmp_path):
    graph = Graph().product("a", "x", 10, 8).floats("scale", 8).floats("shift", 8)
    graph.node("LayerNormalization", "a scale shift", "n", axis=-1, name="norm").product("y", "n", 8, 5)
    found = graph.analysed(tmp_path, WORDS, ["batch", 7, 5])
    assert names(found) == {"a.weight": (8,)}
    assert set(found.normalized) == {"norm"}
    assert set(found.normalized["norm"].tolist()) == set(found.group("a.weight").units)


@pytest.mark.parametrize("op", ["LRN", "Det"])
def test_what_no_rule_covers_is_left_whole_and_named(op, tmp_path):
    graph = Graph().conv("a", "x", 4, 3)
    if op == "LRN":
        graph.node(op, "a", "b", name="odd", size=3).conv("y", "b", 5, 4)
        found = graph.analysed(tmp_path, IMAGE, SCORES)
    else:
        graph.node(op, "a", "y", name="odd")
        found = graph.analysed(tmp_path, IMAGE, ["batch", 4])
    assert not found.groups
    assert ("a.weight", 0, f"{op} 'odd' has no rule") in {(left.weight, left.axis, left.why) for left in found.left}


def test_zeros_of_the_shape_of_a_tensor_do_not_hold_it(tmp_path):
    """An accumulator that starts from zeros: Expand by the shape of one tensor, added to another."""
    graph = Graph().product("a", "x", 10, 8).product("b", "a", 8, 8).floats("zero", 1)
    graph.node("Shape", "a", "shape").node("Expand", "zero shape", "zeros").node("Add", "zeros b", "sum")
    found = graph.product("y", "sum", 8, 5).analysed(tmp_path, WORDS, ["batch", 7, 5])
    assert names(found) == {"a.weight": (8,), "b.weight": (8,)}


def test_dynamic_axes_are_never_cut(tmp_path):
    """A weight that is added along the batch's axis would fit one batch alone."""
    graph = Graph().product("a", "x", 10, 8).node("Relu", "a", "r").product("y", "r", 8, 5)
    found = graph.analysed(tmp_path, WORDS, ["batch", 7, 5])
    assert {axis for factor in found.factors["a"] for axis in factor.axes} == {2}


def test_a_dynamic_length_that_is_read_as_a_number_is_never_cut(tmp_path):
    """Batch and heads are one axis; its length scales what is in it."""
    graph = Graph().product("a", "x", 10, 24).ints("apart", 0, 7, 4, 6).ints("rows", -1, 7, 6)
    graph.node("Reshape", "a apart", "b").node("Transpose", "b", "c", perm=[0, 2, 1, 3]).node("Reshape", "c rows", "d")
    graph.node("ReduceSum", "d last", "e", keepdims=0).ints("last", 2).node("Size", "e", "size")
    graph.node("Cast", "size", "number", to=1).node("Div", "e number", "f").node("Reshape", "f back", "g")
    graph.ints("back", -1, 4, 7).floats("w", 4, 7, 5).node("Einsum", "g w", "y", equation="bht,hto->bo")
    found = graph.analysed(tmp_path, WORDS, ["batch", 5])
    reason = "Size 'size' reads its length as a number"
    assert ("w", 0, reason) in {(left.weight, left.axis, left.why) for left in found.left}


def test_the_size_of_a_matrix_that_another_is_made_like_stays(tmp_path):
    graph = Graph().product("a", "x", 10, 8).node("EyeLike", "a", "b").node("Add", "a b", "c").product("y", "c", 8, 5)
    found = graph.analysed(tmp_path, ["batch", 10], ["batch", 5])
    assert found.groups == ()
    assert "EyeLike 'b' has no rule" in {left.why for left in found.left}
