"""Layers of a quantized graph: where their integers lie, and what they read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtcompress_graph.encoding import Encoding

from ..kinds import is_depthwise
from ..layers import Layer
from ..opening import is_constant

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedLayer:
    """A layer with integer weights.

    Attributes:
        layer: its form; `x` is what it reads in the quantized graph.
        weight: the integers.
        scale: one step a row of the matrix.
        bias: what can be corrected: floats, or integers with steps `bias_scale`; None where there is none of its own.
        limit: greatest integer.
        zero: what stands for zero among the integers.
    """

    layer: Layer
    weight: ir.Value
    scale: Doubles
    bias: ir.Value | None
    bias_scale: Doubles | None
    limit: int
    zero: int


def quantized_layers(graph: ir.Graph, layers: Mapping[str, Layer], encoding: Encoding) -> Iterator[QuantizedLayer]:
    """The layers of the float model whose weights are integers of their own in the quantized graph.

    Args:
        graph: the quantized graph.
        layers: of the float model, by the names of their nodes.
        encoding: of the quantized graph.
    """
    for node in graph:
        layer = layers.get(str(node.name))
        if layer is None or len(node.inputs) < 2:
            continue
        read, weight = _restored(node.inputs[0]), _restored(node.inputs[1])
        if read is None or weight is None or not _alone(weight.inputs[0]) or not _alone(weight.outputs[0]):
            continue
        bias, bias_scale = _bias(node, layer)
        bits = 8 if is_depthwise(node) else encoding.weight_bits
        values = weight.inputs[0]
        assert values is not None
        yield QuantizedLayer(
            replace(layer, x=str(read.outputs[0].name)),
            values,
            _numbers(weight.inputs[1]),
            bias,
            bias_scale,
            2 ** (bits - 1) - 1,
            int(_numbers(weight.inputs[2])[0]),
        )


def _bias(node: ir.Node, layer: Layer) -> tuple[ir.Value | None, Doubles | None]:
    value: ir.Value | None
    if layer.kind == "matmul":
        uses = tuple(node.outputs[0].uses())
        adds = uses[0].node if layer.bias is not None and len(uses) == 1 else None
        if adds is None or adds.op_type != "Add":
            return None, None
        value = next((v for v in adds.inputs if v is not node.outputs[0]), None)
    else:
        value = node.inputs[2] if len(node.inputs) > 2 else None
    restored = _restored(value)
    if restored is not None and _alone(restored.inputs[0]) and _alone(value):
        return restored.inputs[0], _numbers(restored.inputs[1])
    return (value, None) if is_constant(value) and _alone(value) else (None, None)


def _restored(value: ir.Value | None) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _alone(value: ir.Value | None) -> bool:
    """Whether one node alone reads it."""
    return value is not None and len(value.uses()) == 1 and not value.is_graph_output()


def _numbers(value: ir.Value | None) -> Doubles:
    assert value is not None
    assert value.const_value is not None
    return np.atleast_1d(value.const_value.numpy()).astype(np.float64)
