"""Writing a cut into the graph: weights, and everything that names a width. Names stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from trtcompress_graph.fresh import FreshNames

from .consistency import check_nodes
from .coupling import Coupling
from .cut import Alive, Cut, shrink
from .factors import Shape
from .parameters import CutGraph, Parameters, of_node

if TYPE_CHECKING:
    import onnx_ir as ir


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
    for node, parameters in wanted:
        _write(graph, node, parameters, plan, names)
    for name in constants:
        _shrink(graph.initializers[name], plan)
    _drop_unused(graph)
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
        held = plan.stored(node.inputs[place]) if place < len(node.inputs) else None
        if held is not None and held.shape == array.shape and (held == array).all():
            continue
        dtype = np.int64 if held is None else held.dtype
        _replace(graph, node, place, array.astype(dtype), names)
    for place, lengths in wanted.shapes.items():
        if lengths:
            _retarget(graph, node, place, lengths, plan, names)


def _replace(graph: ir.Graph, node: ir.Node, place: int, array: np.ndarray, names: FreshNames) -> ir.Value:  # type: ignore[type-arg]
    """Give a node a stored input of its own; small constants may be shared with other nodes."""
    import onnx_ir as ir

    made = initializer(graph, names.tensor(f"{node.name}.{_ROLES.get((node.op_type, place), 'parameter')}"), array)
    if place >= len(node.inputs):
        node.resize_inputs(place + 1)
    node.replace_input_with(place, made)
    assert isinstance(made, ir.Value)
    return made


def initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:  # type: ignore[type-arg]
    """A new stored tensor."""
    import onnx_ir as ir

    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
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
    graph: ir.Graph, node: ir.Node, place: int, lengths: Mapping[int, int], plan: CutGraph, names: FreshNames
) -> None:
    """Write new lengths into a shape: stored ones anew, computed ones by a Mul and an Add behind them."""
    import onnx_ir as ir

    target = node.inputs[place]
    held = plan.stored(target)
    if held is not None:
        new = held.copy()
        for axis, length in lengths.items():
            axis += len(new) - _rank(node, plan)
            if axis >= 0 and new[axis] not in (-1,) and not (node.op_type == "Expand" and new[axis] == 1):
                new[axis] = length
        if (new != held).any():
            _replace(graph, node, place, new, names)
        return
    size = plan.before(target)[0]
    keep, add = np.ones(size, np.int64), np.zeros(size, np.int64)
    for axis, length in lengths.items():
        axis += size - _rank(node, plan)
        if axis >= 0:
            keep[axis], add[axis] = 0, length
    for op, array in (("Mul", keep), ("Add", add)):
        constant = initializer(graph, names.tensor(f"{node.name}.{op.lower()}"), array)
        made = ir.node(op, [target, constant], name=names.node(f"{node.name}.shape_{op.lower()}"))
        made.outputs[0].name = names.tensor(f"{node.name}.shape_{op.lower()}")
        graph.insert_before(node, made)
        target = made.outputs[0]
    node.replace_input_with(place, target)


def _rank(node: ir.Node, plan: CutGraph) -> int:
    """Number of axes that a shape input is aligned with, from the right."""
    if node.op_type == "Resize":
        return plan.before(node.inputs[3])[0]
    return len(plan.before(node.outputs[0]))


def _drop_unused(graph: ir.Graph) -> None:
    """Stored tensors that no node reads any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(name)
