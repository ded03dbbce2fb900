"""ReduceMean over all places written as GlobalAveragePool, which alone has an INT8 kernel."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from trtcompress_graph.fresh import FreshNames

from .kinds import averages_places, integer


def pool_means(graph: ir.Graph, int8: Iterable[ir.Node], names: FreshNames) -> None:
    """Make each such node of `int8` a GlobalAveragePool, in place, once its Q/DQ pairs are written.

    Where it also drops the axes, they go behind a pair of its own: pool, Q/DQ, Flatten, and then what was there.
    """
    for node in int8:
        if not averages_places(node):
            continue
        drops = integer(node, "keepdims", 1) == 0
        node.op_type = "GlobalAveragePool"
        node.resize_inputs(1)
        node.attributes.clear()
        if drops:
            _flatten_behind(graph, node, names)


def _flatten_behind(graph: ir.Graph, node: ir.Node, names: FreshNames) -> None:
    """The INT8 result of `node` is [N, C, 1, ...] and is dequantized and flattened to what the graph reads."""
    result = node.outputs[0]
    quantize = next(use.node for use in result.uses() if use.node.op_type == "QuantizeLinear")
    name, scale = str(result.name), quantize.inputs[1:3]
    outputs = [names.tensor(f"{name}_pooled{end}") for end in ("", "_quantized", "_dequantized")]
    flat = ir.node("Flatten", [result], {"axis": 1}, name=names.node(f"{name}_Flatten"))
    flat.outputs[0].type, flat.outputs[0].shape = result.type, result.shape
    result.replace_all_uses_with(flat.outputs[0], replace_graph_outputs=True)
    pair = [ir.node("QuantizeLinear", [result, *scale], name=names.node(f"{name}_pooled_QuantizeLinear"))]
    pair.append(
        ir.node("DequantizeLinear", [pair[0].outputs[0], *scale], name=names.node(f"{name}_pooled_DequantizeLinear"))
    )
    flat.replace_input_with(0, pair[1].outputs[0])
    for value, new in zip((result, pair[0].outputs[0], pair[1].outputs[0]), outputs, strict=True):
        value.name = new
    flat.outputs[0].name = name
    result.shape = None
    graph.insert_after(node, [*pair, flat])
