"""What a model costs: multiply-accumulates, parameters and bytes, in all and by operator kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from .load import load_ir
from .model import Model
from .shapes import Shape, graph_shapes

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class OpCost:
    """All nodes of one operator kind together."""

    count: int
    macs: int
    parameters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class NodeCost:
    """One node: multiply-accumulates, and the weights that it is the first to use."""

    name: str
    op: str
    macs: int
    parameters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ModelCost:
    """Cost of one pass.

    Attributes:
        macs: multiply-accumulates of convolutions, matrix products, recurrent cells and attention.
        parameters: elements of all stored tensors but integer constants (shapes, indices).
        bytes: what these parameters occupy.
        per_op: by operator kind, the costliest first.
        nodes: every node that costs anything, the costliest first.
    """

    macs: int
    parameters: int
    bytes: int
    per_op: Mapping[str, OpCost]
    nodes: tuple[NodeCost, ...]


def model_cost(model: Model, input_shapes: Mapping[str, Shape]) -> ModelCost:
    """Cost of one pass over inputs of the given shapes.

    Of an `If` the dearer branch counts, of a loop its body once. A weight that several nodes share counts once.

    Raises:
        ModelError: a shape that does not fit the model.
    """
    loaded = load_ir(model)
    return graph_cost(loaded.graph, graph_shapes(loaded, model, input_shapes))


def graph_cost(graph: ir.Graph, shapes: Mapping[str, Shape]) -> ModelCost:
    """Like `model_cost`, of a graph whose tensors have these shapes; those of its weights count, not their contents."""
    nodes = list(_costs(graph, shapes, set()))
    per_op: dict[str, OpCost] = {}
    for node in nodes:
        held = per_op.get(node.op, OpCost(0, 0, 0, 0))
        per_op[node.op] = OpCost(
            held.count + 1, held.macs + node.macs, held.parameters + node.parameters, held.bytes + node.bytes
        )
    return ModelCost(
        macs=sum(node.macs for node in nodes),
        parameters=sum(node.parameters for node in nodes),
        bytes=sum(node.bytes for node in nodes),
        per_op=dict(sorted(per_op.items(), key=lambda item: (-item[1].macs, -item[1].parameters, item[0]))),
        nodes=tuple(sorted((n for n in nodes if n.macs or n.parameters), key=lambda n: (-n.macs, -n.parameters))),
    )


def node_macs(node: ir.Node, shapes: Mapping[str, Shape]) -> int:
    """Multiply-accumulates of one node, without those of graphs inside it."""
    rule = _MACS.get(node.op_type)
    return rule(node, shapes) if rule else 0


def parameter_names(graph: ir.Graph) -> set[str]:
    """Stored tensors that count as parameters, of the graph itself."""
    return {name for node in graph if not _hands_on(node) for name, _ in _parameters(node)}


def stored_parameters(graph: ir.Graph) -> int:
    """How many numbers the parameters of a graph hold, those of graphs inside it left out; no shapes are needed."""
    held = {name: tensor for node in graph if not _hands_on(node) for name, tensor in _parameters(node)}
    return sum(tensor.size for tensor in held.values())


def _costs(graph: Iterable[ir.Node], shapes: Mapping[str, Shape], seen: set[str]) -> Iterable[NodeCost]:
    """Cost of each node, of the graphs inside too; `seen` holds the weights that were counted."""
    for node in graph:
        if node.op_type == "Constant":
            continue
        tensors = []
        for name, tensor in () if _hands_on(node) else _parameters(node):
            if name not in seen:
                seen.add(name)
                size = prod(shapes[name]) if name in shapes else tensor.size
                tensors.append((size, tensor.dtype.bitwidth))
        yield NodeCost(
            name=node.name or str(node.outputs[0].name),
            op=node.op_type,
            macs=node_macs(node, shapes),
            parameters=sum(size for size, _ in tensors),
            bytes=sum(size * bits for size, bits in tensors) // 8,
        )
        inner = [attribute.as_graph() for attribute in node.attributes.values() if attribute.type.name == "GRAPH"]
        branches = [list(_costs(branch, shapes, seen)) for branch in inner]
        if branches:
            yield from max(branches, key=lambda branch: sum(n.macs for n in branch))


def _parameters(node: ir.Node) -> Iterable[tuple[str, ir.TensorProtocol]]:
    """Stored tensors that a node reads, also through a node that hands them on."""
    import onnx_ir as ir

    for value in node.inputs:
        if value is None:
            continue
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is not None and tensor.dtype.name not in ("INT64", "BOOL", "STRING"):
            yield str(value.name), tensor
        producer = value.producer()
        if producer is not None and _hands_on(producer):
            yield from _parameters(producer)


def _hands_on(node: ir.Node) -> bool:
    """True for what only rewrites a stored tensor for the node behind it, such as the DQ of a weight."""
    import onnx_ir as ir

    first = node.inputs[0] if node.inputs else None
    if node.op_type not in _HANDS_ON or first is None or not node.outputs[0].uses():
        return False
    producer = first.producer()
    return ir.convenience.get_const_tensor(first) is not None or (producer is not None and _hands_on(producer))


def _shape(node: ir.Node, index: int, shapes: Mapping[str, Shape]) -> Shape:
    value = node.inputs[index] if index < len(node.inputs) else None
    return shapes.get(str(value.name), ()) if value is not None else ()


def _out(node: ir.Node, shapes: Mapping[str, Shape]) -> Shape:
    return shapes.get(str(node.outputs[0].name), ())


def _conv(weight: int) -> Callable[[ir.Node, Mapping[str, Shape]], int]:
    """Each output element sums over the channels of its group and the window; `weight` is the weight's place."""
    return lambda node, shapes: prod(_out(node, shapes)) * prod(_shape(node, weight, shapes)[1:])


def _conv_transpose(node: ir.Node, shapes: Mapping[str, Shape]) -> int:
    """Each input element spreads over the output channels of its group and the window."""
    return prod(_shape(node, 0, shapes)) * prod(_shape(node, 1, shapes)[1:])


def _matmul(node: ir.Node, shapes: Mapping[str, Shape]) -> int:
    return prod(_out(node, shapes)) * (_shape(node, 0, shapes) or (1,))[-1]


def _gemm(node: ir.Node, shapes: Mapping[str, Shape]) -> int:
    turned = node.attributes.get_int("transA", 0)
    return prod(_out(node, shapes)) * (_shape(node, 0, shapes) or (1, 1))[0 if turned else -1]


def _recurrent(node: ir.Node, shapes: Mapping[str, Shape]) -> int:
    """Every step of every sequence goes through all of both weight matrices."""
    steps = prod(_shape(node, 0, shapes)[:2])
    return steps * (prod(_shape(node, 1, shapes)) + prod(_shape(node, 2, shapes)))


def _einsum(node: ir.Node, shapes: Mapping[str, Shape]) -> int:
    """The product of the lengths of all letters, which is exact for two operands."""
    terms = node.attributes["equation"].as_string().replace(" ", "").split("->")[0].split(",")
    lengths: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = _shape(node, index, shapes)
        head, dots, tail = term.partition("...")
        middle = len(shape) - len(head) - len(tail)
        letters = [*head, *(f".{i - middle}" for i in range(middle) if dots), *tail]
        for letter, length in zip(letters, shape, strict=False):
            lengths[letter] = max(length, lengths.get(letter, 1))
    return prod(lengths.values())


def _attention(node: ir.Node, shapes: Mapping[str, Shape]) -> int:
    """Scores, then their product with the values. Inputs are [B, heads, S, D] or [B, S, heads x D]."""
    query, key, value = (_shape(node, index, shapes) for index in range(3))
    past = _shape(node, 4, shapes)
    if len(query) == 4:
        batch, heads, steps, width = query
        keys, out_width = key[2], value[3]
    else:
        heads = node.attributes.get_int("q_num_heads", 1)
        batch, steps, width = query[0], query[1], query[2] // heads
        keys, out_width = key[1], value[2] // node.attributes.get_int("kv_num_heads", heads)
    keys += past[2] if len(past) == 4 else 0
    return batch * heads * steps * keys * (width + out_width)


_HANDS_ON = ("DequantizeLinear", "QuantizeLinear", "Cast", "Transpose", "Reshape", "Unsqueeze", "Slice", "Identity")

_MACS: Mapping[str, Callable[[ir.Node, Mapping[str, Shape]], int]] = {
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "DeformConv": _conv(1),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
}
