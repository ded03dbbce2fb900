"""`If`s: which of their branches can be taken at all, and why those that are left could not be folded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .fresh import FreshNames
from .shapes import infer
from .skeleton import skeleton

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_CHOICES = {"then_branch": True, "else_branch": False}


def tell_apart(model: ir.Model) -> None:
    """Give each tensor inside a branch a name that no other has, so that branches can be taken out of their `If`.

    Two branches may use one name for different tensors. What has a name of its own keeps it.
    """
    taken = {value.name for node in model.graph for value in node.outputs}
    taken |= {value.name for value in model.graph.inputs} | set(model.graph.initializers)
    names: FreshNames | None = None
    for graph in model.graph.subgraphs():
        made = (value for node in graph for value in node.outputs if value.name)
        for value in (*graph.inputs, *graph.initializers.values(), *made):
            if value.name in taken:
                names = names or FreshNames(model.graph)
                value.name = names.tensor(str(value.name))
            taken.add(value.name)


def settle_branches(model: ir.Model) -> bool:
    """Make constant the condition of each `If` of which one branch alone fits what reads it; True where one was found.

    Exporters write `x.squeeze(-1)` as "if the length is 1, squeeze, else leave": one branch has an axis more than the
    other, and layers behind take one of the two. With the other the model fails on every input, by ONNX's own rules
    of shapes, so that the branch that is left is the one that is taken.
    """
    import onnx_ir as ir

    settled = False
    for node in list(model.graph):
        if node.op_type != "If" or node.inputs[0] is None or node.inputs[0].is_initializer() or not _ranks_differ(node):
            continue
        fitting = [taken for name, taken in _CHOICES.items() if _fits(model, node, name)]
        if len(fitting) != 1:
            continue
        name = FreshNames(model.graph).tensor(f"{node.name}_taken")
        value = ir.Value(name=name, const_value=ir.tensor(np.array(fitting[0]), name=name))
        value.shape, value.type = ir.Shape([]), ir.TensorType(ir.DataType.BOOL)
        model.graph.register_initializer(value)
        node.replace_input_with(0, value)
        settled = True
    return settled


def open_branches(model: ir.Model) -> tuple[str, ...]:
    """For each `If` that is left, innermost ones too, a sentence that tells its node and what it hangs on."""
    return tuple(_told(node, model.graph) for node in model.graph.all_nodes() if node.op_type == "If")


def uneven_branches(model: ir.Model) -> tuple[str, ...]:
    """Names of the `If`s, innermost ones too, whose result has more axes in one branch than in the other."""
    choices = [node for node in model.graph.all_nodes() if node.op_type == "If"]
    if choices:
        infer(model)
    return tuple(node.name or "If" for node in choices if _ranks_differ(node))


def _told(node: ir.Node, graph: ir.Graph) -> str:
    name = node.name or "If"
    condition = node.inputs[0]
    inputs = sorted(_sources(condition, graph)) if condition is not None else []
    hangs = " and ".join(f"'{value}'" for value in inputs) or "what is computed inside a loop"
    return f"the If '{name}' stays, and all inside it in float: its condition depends on {hangs}"


def _sources(value: ir.Value, graph: ir.Graph) -> set[str]:
    """Inputs of the graph that a value is made from."""
    found: set[str] = set()
    open_, seen = [value], {value}
    while open_:
        current = open_.pop()
        producer = current.producer()
        if producer is None:
            found |= {str(current.name)} if current in graph.inputs else set()
            continue
        for read in _reads(producer):
            if read not in seen:
                seen.add(read)
                open_.append(read)
    return found


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, in graphs inside it too."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        for inner in _graphs(attribute):
            for held in inner.all_nodes():
                yield from (value for value in held.inputs if value is not None)


def _graphs(attribute: ir.Attr) -> tuple[ir.Graph, ...]:
    import onnx_ir as ir

    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return tuple(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else ()


def _ranks_differ(node: ir.Node) -> bool:
    """Whether some output has another rank in one branch than in the other, as far as known."""
    branches = [node.attributes[name].as_graph().outputs for name in _CHOICES]
    return any(
        then.shape is not None and other.shape is not None and len(then.shape) != len(other.shape)
        for then, other in zip(*branches, strict=True)
    )


def _fits(model: ir.Model, node: ir.Node, branch: str) -> bool:
    """Whether ONNX's rules of shapes allow the model in which this branch is always taken."""
    import onnx

    proto = skeleton(model)
    place = next(i for i, held in enumerate(proto.graph.node) if held.output[0] == node.outputs[0].name)
    _take(proto.graph, place, branch)
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return False
    return True


def _take(graph: onnx.GraphProto, place: int, branch: str) -> None:
    """Put the nodes of the branch in the place of the `If`; only shapes are asked of what results."""
    import onnx

    node = graph.node[place]
    inner = next(attribute.g for attribute in node.attribute if attribute.name == branch)
    links = [
        onnx.helper.make_node("Identity", [made.name], [name])
        for made, name in zip(inner.output, node.output, strict=True)
    ]
    rest = list(graph.node)[place + 1 :]
    before = list(graph.node)[:place]
    graph.initializer.extend(inner.initializer)
    del graph.node[:]
    graph.node.extend([*before, *inner.node, *links, *rest])
