"""Writing a cut into the graph: weights, and everything that names a width. Names stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.fresh import FreshNames

from .consistency import check_nodes
from .coupling import Coupling
from .cut import Alive, Cut, shrink
from .factors import Shape
from .parameters import CutGraph, Parameters, of_node
from .read_lengths import give_names, keep_numbers
from .shape_values import ShapeValues, measured

if TYPE_CHECKING:
    import onnx_ir as ir


Array = NDArray[Any]


def apply_cut(model: ir.Model, coupling: Coupling, cut: Cut, shapes: Mapping[str, Shape]) -> None:
    """Cut a graph in place; shapes of what is inside are inferred anew.

    Args:
        model: the graph that `coupling` was found in.
        coupling: what lives and dies together.
        cut: what goes.
        shapes: concrete shapes of the full graph, as for `analyse`.

    Raises:
        PruneError: the cut does not hold together; nothing was changed.
    """
    from trtcompress_graph.shapes import infer

    graph = model.graph
    constants = {name: v.const_value for name, v in graph.initializers.items() if v.const_value is not None}
    plan = CutGraph(shapes, constants, Alive(coupling.factors, cut))
    check_nodes(plan, coupling.factors, graph)
    wanted = [(node, of_node(plan, node)) for node in graph]
    names = FreshNames(graph)
    outputs = keep_numbers(graph, plan, coupling.factors, names)
    for node, parameters in wanted:
        _write(graph, node, parameters, plan, names)
    for name in constants:
        _shrink(graph.initializers[name], plan)
    _drop_unused(graph)
    _forget_shapes(graph, plan)
    give_names(outputs, names)
    infer(model)


def _shrink(value: ir.Value, plan: CutGraph) -> None:
    import onnx_ir as ir

    name = str(value.name)
    mask = plan.alive.mask(name, plan.before(value))
    if mask is None:
        return
    tensor = value.const_value
    assert tensor is not None
    held = shrink(tensor.numpy(), mask, plan.after(value))
    value.const_value = ir.Tensor(held, name=name, dtype=tensor.dtype)
    value.shape = ir.Shape(held.shape)


def _write(graph: ir.Graph, node: ir.Node, wanted: Parameters, plan: CutGraph, names: FreshNames) -> None:
    import onnx_ir as ir

    for name, number in wanted.attributes.items():
        if number is None:
            node.attributes.pop(name, None)
        else:
            node.attributes[name] = ir.AttrInt64(name, number)
    for place, array in wanted.inputs.items():
        _replace(graph, node, place, array, names)
    for place, axes in wanted.shapes.items():
        _retarget(graph, node, place, axes, plan, names)


def _replace(graph: ir.Graph, node: ir.Node, place: int, array: Array, names: FreshNames) -> None:
    """Give a node a stored input of its own, where it differs: small constants are shared with other nodes."""
    before = node.inputs[place] if place < len(node.inputs) else None
    if before is not None and before.const_value is not None:
        held = before.const_value.numpy()
        array = array.astype(held.dtype)
        if held.shape == array.shape and (held == array).all():
            return
    made = initializer(graph, names.tensor(f"{node.name}.{_ROLES.get((node.op_type, place), 'parameter')}"), array)
    if place >= len(node.inputs):
        node.resize_inputs(place + 1)
    node.replace_input_with(place, made)


def initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new stored tensor."""
    import onnx_ir as ir

    tensor = ir.tensor(np.asarray(array, order="C"), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.initializers.add(value)
    return value


_ROLES = {
    ("Reshape", 1): "shape",
    ("Expand", 1): "shape",
    ("ConstantOfShape", 0): "shape",
    ("Resize", 3): "sizes",
    ("Split", 1): "split",
    ("Slice", 1): "starts",
    ("Slice", 2): "ends",
    ("Gather", 1): "indices",
    ("Pad", 1): "pads",
    ("Pad", 3): "axes",
}


def _retarget(
    graph: ir.Graph, node: ir.Node, place: int, axes: tuple[int, ...], plan: CutGraph, names: FreshNames
) -> None:
    """Write new lengths into a shape: into what is stored, or behind what is computed."""
    target, output = node.inputs[place], node.outputs[0]
    before, after = plan.before(output), plan.after(output)
    held = plan.stored(target)
    if held is not None:
        new = {i: after[axis] for i, axis in enumerate(axes) if before[axis] != after[axis]}
        kept = plan.after(node.inputs[0])[: len(axes)] if node.op_type == "Reshape" else ()
        _replace(graph, node, place, _with_lengths(held, new, node.op_type, kept), names)
        return
    if before == after and not any(plan.alive.touched(str(value.name)) for value in measured(target)):
        return
    found = ShapeValues(plan.after).of(target)
    told = [before[axis] for axis in axes] if found is None else found.tolist()
    given = (1,) * (len(after) - len(plan.after(node.inputs[0]))) + plan.after(node.inputs[0])
    wrong = [i for i, axis in enumerate(axes) if not _says(node, told[i], after[axis], given[axis : axis + 1])]
    if wrong:
        change = _Change({i: after[axes[i]] for i in wrong}, _shares(output, axes, told, after, wrong))
        if not _in_pieces(graph, node, place, change, plan, names):
            node.replace_input_with(place, _computed(graph, node, target, change, plan, names))


def _says(node: ir.Node, told: int, length: int, given: Shape) -> bool:
    """Whether an element of a shape gives this length; -1 (and 0) is found out, an Expand to 1 leaves what is given."""
    if node.op_type == "Expand" and told == 1:
        return given == (length,)
    return told == length or (node.op_type == "Reshape" and told in (-1, 0))


def _shares(
    output: ir.Value, axes: tuple[int, ...], told: list[int], after: Shape, wrong: list[int]
) -> dict[int, tuple[int, int]]:
    """An axis that holds a dynamic one too, such as batch times heads, is scaled: what it says, to what it should."""
    shape = output.shape
    return {i: (after[axes[i]], told[i]) for i in wrong if shape is None or not isinstance(shape[axes[i]], int)}


@dataclass(frozen=True, slots=True)
class _Change:
    """New lengths in a shape, by place; those in `shares` (after, before) hold a dynamic axis too and are scaled."""

    lengths: Mapping[int, int]
    shares: Mapping[int, tuple[int, int]]

    def within(self, start: int, size: int) -> _Change:
        """What concerns a piece of the shape."""
        inside = range(start, start + size)
        return _Change(
            {place - start: length for place, length in self.lengths.items() if place in inside},
            {place - start: share for place, share in self.shares.items() if place in inside},
        )


def _with_lengths(held: Array, lengths: Mapping[int, int], op: str, kept: Shape = ()) -> Array:
    """A stored shape with new lengths; what is to be found out (-1), kept (0) or broadcast to (1) stays."""
    new = held.copy()
    for i, length in lengths.items():
        found = new[i] == -1 or (new[i] == 0 and kept[i : i + 1] == (length,))
        if not found and not (op == "Expand" and new[i] == 1):
            new[i] = length
    return new


def _in_pieces(graph: ir.Graph, node: ir.Node, place: int, change: _Change, plan: CutGraph, names: FreshNames) -> bool:
    """Exchange the pieces of a shape that a Concat joins; False where there is none."""
    import onnx_ir as ir

    target = node.inputs[place]
    joint = target.producer() if target is not None else None
    if joint is None or joint.op_type != "Concat":
        return False
    own = len(joint.outputs[0].uses()) == 1
    pieces: list[ir.Value | None] = []
    start = 0
    for value in joint.inputs:
        size = plan.before(value)[0] if plan.before(value) else 0
        inside = change.within(start, size)
        start += size
        if inside.lengths:
            value = _piece(graph, joint if own else node, value, inside, plan, names)
        pieces.append(value)
    if own:
        for index, value in enumerate(pieces):
            joint.replace_input_with(index, value)
        return True
    made = ir.node("Concat", pieces, {"axis": 0}, name=names.node(f"{node.name}.shape"))
    made.outputs[0].name = names.tensor(f"{node.name}.shape")
    graph.insert_before(node, made)
    node.replace_input_with(place, made.outputs[0])
    return True


def _piece(
    graph: ir.Graph, node: ir.Node, value: ir.Value | None, change: _Change, plan: CutGraph, names: FreshNames
) -> ir.Value | None:
    """A piece of a shape with new lengths: stored, where they are known."""
    held = plan.stored(value)
    if held is not None:
        new = _with_lengths(held, change.lengths, node.op_type)
        return value if (new == held).all() else initializer(graph, names.tensor(f"{node.name}.shape"), new)
    if plan.before(value)[0] == 1 and not change.shares:
        return initializer(graph, names.tensor(f"{node.name}.shape"), np.array([change.lengths[0]], np.int64))
    return _computed(graph, node, value, change, plan, names)


def _computed(
    graph: ir.Graph, node: ir.Node, value: ir.Value | None, change: _Change, plan: CutGraph, names: FreshNames
) -> ir.Value | None:
    """Nodes behind a computed shape (or a piece of it) set the new lengths, scale the shares, and leave the rest."""
    import onnx_ir as ir

    times, over, more = (np.full(plan.before(value)[0], n, np.int64) for n in (1, 1, 0))
    for axis, length in change.lengths.items():
        times[axis], more[axis] = 0, length
    for axis, (after, before) in change.shares.items():
        common = gcd(after, before)
        times[axis], over[axis], more[axis] = after // common, before // common, 0
    for op, array in (("Mul", times), ("Div", over), ("Add", more)):
        if (array == (0 if op == "Add" else 1)).all():
            continue
        constant = initializer(graph, names.tensor(f"{node.name}.shape_{op.lower()}"), array)
        made = ir.node(op, [value, constant], name=names.node(f"{node.name}.shape_{op.lower()}"))
        value = made.outputs[0]
        value.name = names.tensor(f"{node.name}.shape_{op.lower()}")
        graph.insert_before(node, made)
    return value


def _forget_shapes(graph: ir.Graph, plan: CutGraph) -> None:
    """Drop the lengths of axes that were cut; those of other axes, and their names, stay."""
    import onnx_ir as ir

    for node in graph:
        for value in node.outputs:
            if value.shape is not None and plan.alive.touched(str(value.name)):
                new = plan.changed(value)
                dims = enumerate(value.shape)
                value.shape = ir.Shape([_length(dim, new[axis]) if axis in new else dim for axis, dim in dims])


def _length(dim: int | ir.SymbolicDim, after: int) -> int | None:
    """The new length of an axis; one that depends on a dynamic axis too is found by inference."""
    return after if isinstance(dim, int) else None


def _drop_unused(graph: ir.Graph) -> None:
    """Stored tensors that no node reads any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(name)
