"""Nodes that are left in float between INT8 ones, written so that ONNX Runtime leaves them alone too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.fresh import FreshNames

from .kinds import integer, is_weighted, weight_of
from .opening import is_constant

_REMOVED = frozenset({"Identity", "Dropout"})
"""Operators that ONNX Runtime takes out."""


def keep_float(graph: ir.Graph, int8: Collection[ir.Node], encoding: Encoding, names: FreshNames) -> None:
    """Dequantize what such a node reads with a scale for each channel, all of them equal.

    ONNX Runtime quantizes the weights of a Conv, ConvTranspose or Gemm between pairs by itself (a MatMul with an Add
    behind it is one), with one scale for all (WeightBiasQuantization, on by default), so that what mixed precision
    keeps exact would be INT8 all the same. It does so only behind a DequantizeLinear with a single scale, which it
    moves over a Reshape, a Transpose and others (QDQPropagationTransformer): behind such a node the numbers are
    quantized again with the scale that they have.
    The numbers are the same.
    """
    moved = _REMOVED.union(encoding.shared_scale_ops)
    for node in graph:
        if node in int8 or not is_weighted(node) or not is_constant(weight_of(node)):
            continue
        if node.op_type == "MatMul" and not _becomes_gemm(node):
            continue
        value = node.inputs[0]
        restored = _dequantized(value, moved)
        if value is None or restored is None:
            continue
        integers, scale, zero_point = restored.inputs[:3]
        if restored is not value.producer():
            integers = _quantized_again(graph, node, [value, scale, zero_point], names)
        spread = [_spread(graph, v, _channels(node), names) for v in (scale, zero_point)]
        axis = -1 if node.op_type == "MatMul" else integer(node, "transA", 0) ^ 1
        again = _placed(graph, node, "DequantizeLinear", [integers, *spread], {"axis": axis}, names)
        made = again.outputs[0]
        made.name, made.type, made.shape = names.tensor(f"{value.name}_channels"), value.type, value.shape
        node.replace_input_with(0, made)
        if restored is value.producer() and not value.uses() and not value.is_graph_output():
            graph.remove(restored, safe=True)


def _becomes_gemm(node: ir.Node) -> bool:
    """Whether ONNX Runtime makes a MatMul and the Add behind it one Gemm (MatMulAddFusion)."""
    weight, uses = weight_of(node), node.outputs[0].uses()
    flat = weight is not None and weight.shape is not None and len(weight.shape) == 2
    return flat and len(uses) == 1 and next(iter(uses)).node.op_type == "Add"


def _dequantized(value: ir.Value | None, moved: Collection[str]) -> ir.Node | None:
    """The DequantizeLinear with a single scale that makes `value`, at once or before operators of `moved`."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in moved and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    single = node is not None and node.op_type == "DequantizeLinear" and is_constant(node.inputs[1])
    return node if single and node is not None and "axis" not in node.attributes else None


def _quantized_again(graph: ir.Graph, node: ir.Node, inputs: Sequence[ir.Value | None], names: FreshNames) -> ir.Value:
    value, zero_point = inputs[0], inputs[2]
    assert value is not None
    assert zero_point is not None
    made = _placed(graph, node, "QuantizeLinear", inputs, {}, names).outputs[0]
    made.name, made.shape = names.tensor(f"{value.name}_again"), value.shape
    made.type = ir.TensorType(zero_point.dtype or ir.DataType.UINT8)
    return made


def _placed(
    graph: ir.Graph,
    node: ir.Node,
    kind: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, int],
    names: FreshNames,
) -> ir.Node:
    """A node right before `node`."""
    made = ir.node(kind, inputs, dict(attributes), name=names.node(f"{node.name}_{kind}"))
    graph.insert_before(node, [made])
    return made


def _channels(node: ir.Node) -> int:
    """How many channels or features the node reads."""
    weight = weight_of(node)
    assert weight is not None
    assert weight.const_value is not None
    shape = weight.const_value.shape.numpy()
    if node.op_type == "Conv":
        return int(shape[1]) * integer(node, "group", 1)
    return int(shape[1 if node.op_type == "Gemm" and integer(node, "transB", 0) else 0])


def _spread(graph: ir.Graph, value: ir.Value | None, count: int, names: FreshNames) -> ir.Value:
    """A scalar as that many equal numbers."""
    assert value is not None
    assert value.const_value is not None
    name = names.tensor(f"{value.name}_channels")
    held = ir.tensor(np.full(count, value.const_value.numpy()), name=name)
    made = ir.Value(name=name, shape=ir.Shape([count]), type=ir.TensorType(held.dtype), const_value=held)
    graph.register_initializer(made)
    return made
