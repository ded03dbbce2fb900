"""Nodes that are left in float between INT8 ones, written so that ONNX Runtime leaves them alone too."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from trtcompress_graph.fresh import FreshNames

from .kinds import integer, is_weighted, weight_of
from .opening import is_constant


def keep_float(graph: ir.Graph, int8: Collection[ir.Node], names: FreshNames) -> None:
    """Dequantize what such a node reads with a scale for each channel, all of them equal.

    ONNX Runtime quantizes the weights of a Conv, ConvTranspose or Gemm between pairs by itself, with one scale for all
    (WeightBiasQuantization, on by default), so that what mixed precision keeps exact would be INT8 all the same. It
    does so only behind a DequantizeLinear with a single scale. The numbers are the same.
    """
    for node in graph:
        if node in int8 or not is_weighted(node) or node.op_type == "MatMul" or not is_constant(weight_of(node)):
            continue
        value = node.inputs[0]
        restored = value.producer() if value is not None else None
        if value is None or restored is None or restored.op_type != "DequantizeLinear" or integer(node, "transA", 0):
            continue
        inputs = [restored.inputs[0], *(_spread(graph, v, _channels(node), names) for v in restored.inputs[1:3])]
        again = ir.node("DequantizeLinear", inputs, {"axis": 1}, name=names.node(f"{node.name}_DequantizeLinear"))
        made = again.outputs[0]
        made.name, made.type, made.shape = names.tensor(f"{value.name}_channels"), value.type, value.shape
        graph.insert_before(node, [again])
        node.replace_input_with(0, made)
        if not value.uses() and not value.is_graph_output():
            graph.remove(restored, safe=True)


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
