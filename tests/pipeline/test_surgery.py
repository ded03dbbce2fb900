"""What a cut writes into a graph: everything that names a width, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnx_models import model, save, value
from trtcompress.pruning.coupling import Coupling, analyse
from trtcompress.pruning.cut import Cut
from trtcompress.pruning.surgery import apply_cut
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import PruneError
from trtcompress_graph.load import load_ir, read_model
from trtcompress_graph.shapes import graph_shapes, infer
from zoo.entries import Entry
from zoo.proof import prove, prove_cut, subject_of

BATCH = {"x": {"batch": AxisRange(1, 2, 3)}}
RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def node(op: str, inputs: str, outputs: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=outputs.split()[0], **attributes)


class Work:
    """A graph that is cut in halves; the whole is proven first, at two lengths of the batch."""

    def __init__(self, folder: Path, nodes: list, weights: Mapping[str, np.ndarray], x: list, y: list) -> None:
        proto = model(nodes, [value("x", x)], [value("y", y)], weights, opset=20)
        self.model = read_model(save(proto, folder / "m.onnx"))
        loaded = load_ir(self.model)
        infer(loaded)
        self.model = read_model(save(ir.serde.serialize_model(loaded), folder / "m.onnx"))
        entry = Entry("work", lambda _: self.model, __name__, BATCH)
        self.subject = subject_of(entry, self.model)
        assert {
            group.name: prove(self.subject, group) for group in self.coupling.groups if prove(self.subject, group)
        } == {}

    @property
    def coupling(self) -> Coupling:
        return self.subject.coupling

    def cut(self, *names: str, keep: int = 2) -> onnx.ModelProto:
        """Every cell of these groups without the last of each `keep`."""
        cells = [cell for name in names for cell in self.coupling.group(name).cells]
        units = [unit for cell in cells for unit in cell[: len(cell) // keep]]
        loaded = load_ir(self.model)
        apply_cut(loaded, self.coupling, Cut.of(self.coupling.relations, units), self.subject.shapes[0])
        return ir.serde.serialize_model(loaded)


def weights(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def at(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(made for made in proto.graph.node if made.name == name)


def test_a_shared_constant_is_cut_for_one_reader_only(tmp_path):
    """Two Reshapes have the same target; a cut of one must not reach the other."""
    held = {"a.w": floats(8, 3, 1, 1), "b.w": floats(8, 3, 1, 1), "flat": np.array([0, 8, 16])}
    nodes = [node("Conv", "x a.w", "a"), node("Conv", "x b.w", "b")]
    nodes += [node("Reshape", "a flat", "c"), node("Reshape", "b flat", "d")]
    nodes += [
        node("Concat", "c d", "e", axis=1),
        node("Transpose", "e", "f", perm=[0, 2, 1]),
        node("MatMul", "f h", "y"),
    ]
    work = Work(tmp_path, nodes, held | {"h": floats(16, 5)}, ["batch", 3, 4, 4], ["batch", 16, 5])
    pruned = work.cut("a.w")
    assert weights(pruned)["flat"].tolist() == [0, 8, 16]
    assert at(pruned, "d").input[1] == "flat"
    assert weights(pruned)[at(pruned, "c").input[1]].tolist() == [0, 4, 16]
    assert at(pruned, "c").input[1] == "c.shape"


def test_zeros_and_minus_one_of_a_shape_stay(tmp_path):
    held = {"a.w": floats(8, 3, 1, 1), "kept": np.array([0, 0, 16]), "found": np.array([0, -1, 4, 4])}
    nodes = [node("Conv", "x a.w", "a"), node("Reshape", "a kept", "b"), node("Relu", "b", "c")]
    nodes += [node("Reshape", "c found", "d"), node("Conv", "d h", "y")]
    work = Work(tmp_path, nodes, held | {"h": floats(5, 8, 1, 1)}, ["batch", 3, 4, 4], ["batch", 5, 4, 4])
    pruned = weights(work.cut("a.w"))
    assert pruned["kept"].tolist() == [0, 0, 16]
    assert pruned["found"].tolist() == [0, -1, 4, 4]


def heads_of(batch: list[onnx.NodeProto], x: str, heads: int, size: int) -> list[onnx.NodeProto]:
    """Batch and heads in one axis, whose length is computed from that of the batch."""
    return [
        node("Shape", "x", "batch", start=0, end=1),
        node("Mul", "batch heads", "rows"),
        node("Concat", "rows words size", "joined", axis=0),
        *batch,
        node("Reshape", f"{x} apart", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1, 3]),
        node("Reshape", "t joined", "j"),
    ]


def test_an_axis_that_holds_the_batch_too_is_scaled(tmp_path):
    held = {"a.w": floats(10, 24), "heads": np.array([4]), "words": np.array([7]), "size": np.array([6])}
    held |= {"apart": np.array([0, 7, 4, 6]), "back": np.array([-1, 4, 7, 7]), "h": floats(4, 5)}
    nodes = heads_of([node("MatMul", "x a.w", "a")], "a", 4, 6)
    nodes += [node("Transpose", "j", "k", perm=[0, 2, 1]), node("MatMul", "j k", "s"), node("Reshape", "s back", "b")]
    nodes += [node("Transpose", "b", "u", perm=[0, 2, 3, 1]), node("MatMul", "u h", "v")]
    nodes += [node("ReduceMean", "v last", "y", keepdims=0)]
    work = Work(tmp_path, nodes, held | {"last": np.array([2])}, ["batch", 7, 10], ["batch", 7, 5])
    assert "a.w:heads" in {group.name for group in work.coupling.groups}
    pruned = work.cut("a.w:heads")
    assert weights(pruned)["a.w"].shape == (10, 12)
    assert {made.name for made in pruned.graph.node} > {made.name for made in nodes}


def test_zeros_of_a_cut_tensors_shape_keep_their_own_length(tmp_path):
    """The shape that is read gets shorter, but the sum that starts from the zeros does not."""
    held = {"a.w": floats(10, 8), "b.w": floats(8, 8), "zero": np.zeros(1, np.float32), "h": floats(8, 5)}
    nodes = [node("MatMul", "x a.w", "a"), node("Shape", "a", "shape"), node("Expand", "zero shape", "zeros")]
    nodes += [node("MatMul", "a b.w", "b"), node("Add", "zeros b", "sum"), node("MatMul", "sum h", "y")]
    work = Work(tmp_path, nodes, held, ["batch", 7, 10], ["batch", 7, 5])
    assert {group.name for group in work.coupling.groups} == {"a.w", "b.w"}
    assert weights(work.cut("a.w"))["b.w"].shape == (4, 8)
    assert weights(work.cut("a.w", "b.w"))["b.w"].shape == (4, 4)


def test_an_expand_to_one_channel_keeps_the_length_that_it_had(tmp_path):
    """Of the tensor whose shape is read one channel is left, and 1 would leave the zero as it is."""
    held = {"a.w": floats(10, 8), "b.w": floats(8, 8), "zero": np.zeros(1, np.float32), "last": np.array([-1])}
    nodes = [node("MatMul", "x a.w", "a"), node("Shape", "a", "shape"), node("Expand", "zero shape", "zeros")]
    nodes += [node("MatMul", "a b.w", "b"), node("ReduceSum", "b last", "s", keepdims=1), node("Add", "zeros s", "y")]
    work = Work(tmp_path, nodes, held, ["batch", 7, 10], ["batch", 7, 8])
    (group,) = (group for group in work.coupling.groups if group.name == "a.w")
    assert not prove_cut(work.subject, group.units[1:])


def scaled_by(number: list[onnx.NodeProto], tmp_path: Path) -> Work:
    """A product that is divided by `length`, an integer that the nodes compute from what is divided."""
    nodes = [node("MatMul", "x a.w", "a"), *number, node("Cast", "length", "f", to=onnx.TensorProto.FLOAT)]
    nodes += [node("Div", "a f", "d"), node("MatMul", "d h", "y")]
    held = {"a.w": floats(10, 8), "h": floats(8, 5), "first": np.array([0]), "last": np.array([-1])}
    return Work(tmp_path, nodes, held, ["batch", 7, 10], ["batch", 7, 5])


def test_a_length_that_is_read_as_a_number_stays(tmp_path):
    work = scaled_by([node("Shape", "a", "shape"), node("Gather", "shape last", "length")], tmp_path)
    made = [one.op_type for one in work.cut("a.w").graph.node]
    assert made == ["MatMul", "Shape", "Mul", "Gather", "Cast", "Div", "MatMul"]
    pruned = weights(work.cut("a.w", keep=8))
    assert pruned["shape.uncut_mul"].tolist() == [1, 1, 8]
    assert pruned["shape.uncut_div"].tolist() == [1, 1, 7]


def test_a_length_that_is_not_cut_is_read_as_it_is(tmp_path):
    work = scaled_by([node("Shape", "a", "shape"), node("Gather", "shape first", "length")], tmp_path)
    assert len(work.cut("a.w").graph.node) == len(work.subject.proto.graph.node)


def test_what_is_a_shape_and_a_number_is_computed_twice(tmp_path):
    nodes = [node("Shape", "a", "shape"), node("Gather", "shape last", "length")]
    nodes += [node("Gather", "shape first", "batch"), node("Concat", "batch words length", "joined", axis=0)]
    nodes += [node("MatMul", "x a.w", "a"), node("Reshape", "a joined", "r")]
    nodes += [
        node("Cast", "length", "f", to=onnx.TensorProto.FLOAT),
        node("Div", "r f", "d"),
        node("MatMul", "d h", "y"),
    ]
    held = {"a.w": floats(10, 8), "h": floats(8, 5), "first": np.array([0]), "last": np.array([-1])}
    nodes = [nodes[4], *nodes[:4], *nodes[5:]]
    work = Work(tmp_path, nodes, held | {"words": np.array([7])}, ["batch", 7, 10], ["batch", 7, 5])
    pruned = work.cut("a.w")
    assert at(pruned, "r").input[1] == "joined"
    assert at(pruned, "joined").input[2] == "length"
    assert at(pruned, "f").input[0] == at(pruned, "length.uncut").output[0]


def test_split_sizes_are_counted_in_what_is_left(tmp_path):
    held = {"a.w": floats(10, 3, 1, 1), "u.w": floats(5, 5, 1, 1), "v.w": floats(5, 5, 1, 1)}
    nodes = [node("Conv", "x a.w", "a"), node("Split", "a", "s t", axis=1, num_outputs=2)]
    nodes += [node("Conv", "s u.w", "u"), node("Conv", "t v.w", "v"), node("Add", "u v", "y")]
    pruned = Work(tmp_path, nodes, held, ["batch", 3, 4, 4], ["batch", 5, 4, 4]).cut("a.w", keep=4)
    split = at(pruned, "s")
    assert not split.attribute or [a.name for a in split.attribute] == ["axis"]
    assert weights(pruned)[split.input[1]].tolist() == [4, 5]


def test_groups_of_a_convolution(tmp_path):
    held = {"a.w": floats(12, 3, 1, 1), "b.w": floats(8, 3, 1, 1), "h": floats(5, 8, 1, 1)}
    nodes = [node("Conv", "x a.w", "a"), node("Relu", "a", "r"), node("Conv", "r b.w", "b", group=4)]
    nodes += [node("Conv", "b h", "y")]
    work = Work(tmp_path, nodes, held, ["batch", 3, 4, 4], ["batch", 5, 4, 4])
    assert helper.get_node_attr_value(at(work.cut("b.w:dims"), "b"), "group") == 4
    halved = work.cut("a.w:groups")
    assert helper.get_node_attr_value(at(halved, "b"), "group") == 2
    assert weights(halved)["b.w"].shape == (4, 3, 1, 1)


def test_hidden_size_of_both_directions(tmp_path):
    held = {"W": floats(2, 32, 10), "R": floats(2, 32, 8), "B": floats(2, 64), "h": floats(8, 5)}
    nodes = [node("LSTM", "x W R B", "s", hidden_size=8, direction="bidirectional")]
    nodes += [node("MatMul", "s h", "m"), node("ReduceSum", "m one", "y", keepdims=0)]
    work = Work(tmp_path, nodes, held | {"one": np.array([1])}, [7, "batch", 10], [7, "batch", 5])
    (group,) = work.coupling.groups
    pruned = work.cut(group.name)
    assert helper.get_node_attr_value(at(pruned, "s"), "hidden_size") == 4
    shapes = {name: array.shape for name, array in weights(pruned).items()}
    assert (shapes["W"], shapes["R"], shapes["B"]) == ((2, 16, 10), (2, 16, 4), (2, 32))


def test_declared_shapes_follow_and_names_of_axes_stay(tmp_path):
    held = {"a.w": floats(8, 3, 1, 1), "h": floats(5, 8, 1, 1)}
    nodes = [node("Conv", "x a.w", "a"), node("Relu", "a", "r"), node("Conv", "r h", "y")]
    pruned = Work(tmp_path, nodes, held, ["batch", 3, 4, 4], ["batch", 5, 4, 4]).cut("a.w")
    told = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in pruned.graph.value_info}
    assert told["a"] == told["r"] == ["batch", 4, 4, 4]


def test_a_cut_that_does_not_hold_changes_nothing(tmp_path):
    held = {"a.w": floats(12, 3, 1, 1), "b.w": floats(8, 3, 1, 1), "h": floats(5, 8, 1, 1)}
    nodes = [node("Conv", "x a.w", "a"), node("Conv", "a b.w", "b", group=4), node("Conv", "b h", "y")]
    work = Work(tmp_path, nodes, held, ["batch", 3, 4, 4], ["batch", 5, 4, 4])
    loaded = load_ir(work.model)
    before = ir.serde.serialize_model(loaded).SerializeToString(deterministic=True)
    one = work.coupling.group("a.w:dims").units[0]
    with pytest.raises(PruneError, match=r"whole tensor|equally many"):
        apply_cut(loaded, work.coupling, Cut.of(work.coupling.relations, [one]), work.subject.shapes[0])
    assert ir.serde.serialize_model(loaded).SerializeToString(deterministic=True) == before


def test_the_same_cut_gives_the_same_bytes(tmp_path):
    held = {"a.w": floats(8, 3, 1, 1), "flat": np.array([0, 128]), "h": floats(128, 5)}
    nodes = [node("Conv", "x a.w", "a"), node("Reshape", "a flat", "f"), node("MatMul", "f h", "y")]
    work = Work(tmp_path, nodes, held, ["batch", 3, 4, 4], ["batch", 5])
    again = analyse(load_ir(work.model).graph, graph_shapes(load_ir(work.model), work.model, {"x": (2, 3, 4, 4)}))
    assert [group.cells for group in again.groups] == [group.cells for group in work.coupling.groups]
    one, other = (work.cut("a.w").SerializeToString(deterministic=True) for _ in range(2))
    assert one == other
