"""Means in INT8, written as the operators that have fast kernels for them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.fresh import FreshNames

from .int8 import absorbed_by
from .kinds import averages_places, integer, text


def pool_means(graph: ir.Graph, int8: Iterable[ir.Node], encoding: Encoding, names: FreshNames) -> None:
    """Make each such node of `int8` a GlobalAveragePool, in place, once its Q/DQ pairs are written.

    Where it also drops the axes, they go behind a pair of its own: pool, what it absorbs, Q/DQ, Flatten, and then what
    was there.
    """
    for node in int8:
        if not averages_places(node):
            continue
        drops = integer(node, "keepdims", 1) == 0
        axes = node.inputs[1] if len(node.inputs) > 1 else None
        node.op_type = "GlobalAveragePool"
        node.resize_inputs(1)
        if axes is not None and axes.is_initializer() and not axes.uses() and not axes.is_graph_output():
            del graph.initializers[str(axes.name)]
        node.attributes.clear()
        if drops:
            node.outputs[0].shape = None
            _flatten_behind(graph, (node, *absorbed_by(node, encoding))[-1], names)


def convolve_means(graph: ir.Graph, int8: Iterable[ir.Node], names: FreshNames) -> None:
    """Make each AveragePool of `int8` a depthwise convolution with equal weights, in place, where that is the same.

    ONNX Runtime computes INT8 averages one by one: on 64 channels of 56 x 56 its convolution takes a twelfth of the
    time (2 x 2 with stride 2, and 3 x 3).
    """
    for node in int8:
        value = node.inputs[0]
        channels = value.shape[1] if value is not None and value.shape is not None and len(value.shape) > 2 else None
        if node.op_type != "AveragePool" or not isinstance(channels, int) or not _counts_all(node):
            continue
        window = [int(length) for length in node.attributes["kernel_shape"].as_ints()]
        node.op_type = "Conv"
        for key in ("count_include_pad", "ceil_mode"):
            node.attributes.pop(key, None)
        node.attributes["group"] = ir.AttrInt64("group", channels)
        node.resize_inputs(2)
        node.replace_input_with(1, _equal_weights(graph, node, (channels, 1, *window), names))


def _counts_all(node: ir.Node) -> bool:
    """Whether every result is a sum over as many numbers, padding included."""
    pads = node.attributes.get("pads")
    padded = pads is not None and any(pads.as_ints())
    plain = integer(node, "ceil_mode", 0) == 0 and text(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return plain and (not padded or integer(node, "count_include_pad", 0) == 1)


def _equal_weights(graph: ir.Graph, node: ir.Node, shape: tuple[int, ...], names: FreshNames) -> ir.Value:
    """Dequantized weights of 1 over the size of the window."""
    stem = f"{node.outputs[0].name}_mean"
    scale = np.float32(1 / (127 * math.prod(shape[2:])))
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "quantized": np.full(shape, 127, np.int8),
        "scale": np.asarray(scale),
        "zero_point": np.asarray(np.int8(0)),
    }
    stored = []
    for end, array in arrays.items():
        name = names.tensor(f"{stem}_{end}")
        held = ir.tensor(array, name=name)
        stored.append(
            ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(held.dtype), const_value=held)
        )
        graph.register_initializer(stored[-1])
    restored = ir.node("DequantizeLinear", stored, name=names.node(f"{stem}_DequantizeLinear"))
    restored.outputs[0].name = names.tensor(f"{stem}_dequantized")
    restored.outputs[0].type, restored.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
    graph.insert_before(node, [restored])
    return restored.outputs[0]


def _flatten_behind(graph: ir.Graph, node: ir.Node, names: FreshNames) -> None:
    """The INT8 result of `node` is [N, C, 1, ...] and is dequantized and flattened to what the graph reads.

    Args:
        graph: main graph.
        node: the pool, or the last rectifier that it absorbs.
        names: of the graph.
    """
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
