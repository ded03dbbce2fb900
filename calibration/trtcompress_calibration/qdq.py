"""Q/DQ pairs written into a graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.fresh import FreshNames

from .kinds import bias_of, channel_axis, is_depthwise, runs_as_product, weight_of
from .layout import Pair
from .scales import Scale
from .weights import QuantizedWeight, least_scale_for, quantize_bias, quantize_weight, quantize_weight_f8

Array = npt.NDArray[np.generic]


class QdqWriter:
    """Writes pairs into `graph`; the names of all its tensors stay unique.

    Args:
        graph: main graph, changed in place.
        encoding: how numbers are written.
        weights: how far a channel of a weight reaches; see `weights.WEIGHT_METHODS`.
    """

    def __init__(self, graph: ir.Graph, encoding: Encoding, weights: str = "minmax") -> None:
        self._graph = graph
        self._encoding = encoding
        self._method = weights
        self._names = FreshNames(graph)
        self._weights: dict[tuple[ir.Value, int | None, int, bytes], ir.Value] = {}

    def write(self, pairs: Iterable[Pair], int8: Collection[ir.Node]) -> None:
        """Write the pairs of activations, and the integers of the weights of the nodes in `int8`."""
        pairs = tuple(pairs)
        input_scale = {use: pair.scale for pair in pairs for use in pair.readers}
        weighted = [node for node in self._graph if node in int8 and weight_of(node) is not None]
        for node in weighted:
            self.write_weights(node, input_scale[(node, 0)])
        for pair in pairs:
            self._write_pair(pair)
        for name, value in [*self._graph.initializers.items()]:
            if not value.uses() and not value.is_graph_output():
                del self._graph.initializers[name]

    def _write_pair(self, pair: Pair) -> None:
        value, name = pair.value, pair.value.name or ""
        producer = value.producer()
        output = pair.whole and value.is_graph_output()
        if output:
            value.name = self._names.tensor(f"{name}_float")
        scale = self._constant(f"{name}_scale", np.asarray(pair.scale.scale))
        zero_point = self._constant(f"{name}_zero_point", np.asarray(pair.scale.zero_point))
        quantize = self._node("QuantizeLinear", name, [value, scale, zero_point], f"{name}_quantized")
        quantize.outputs[0].type = ir.TensorType(zero_point.dtype or ir.DataType.UINT8)
        restored = self._node("DequantizeLinear", name, [quantize.outputs[0], scale, zero_point], f"{name}_dequantized")
        result = restored.outputs[0]
        for made in (quantize.outputs[0], result):
            made.shape = value.shape
        result.type = value.type
        for node, index in pair.readers:
            node.replace_input_with(index, result)
        if output:
            self._graph.outputs[self._graph.outputs.index(value)] = result
            result.name = name
        if producer is None:
            self._graph.insert_before(self._graph[0], [quantize, restored])
        else:
            self._graph.insert_after(producer, [quantize, restored])

    def write_weights(self, node: ir.Node, input_scale: Scale) -> None:
        """Write the integers of the weight of a node, and of its bias where the encoding has them."""
        weight, bias = weight_of(node), bias_of(node)
        assert weight is not None
        bias_values = _floats(bias) if bias is not None and self._encoding.quantized_bias else None
        axis = channel_axis(node)
        least = None if bias_values is None else least_scale_for(bias_values, input_scale.scale)
        if least is not None and axis is None:
            least = least.max(keepdims=True)
        # ONNX Runtime's depthwise kernels add in 32 bits on every CPU: reduced weights would only lose there.
        bits = 8 if is_depthwise(node) else self._encoding.weight_bits
        if self._encoding.activation == "f8":
            made = quantize_weight_f8(_floats(weight), axis, self._encoding.float_type)
        else:
            made = quantize_weight(_floats(weight), axis, bits, self._encoding.float_type, least, self._method)
        node.replace_input_with(1, self._weight(weight, made, weight_zero_point(node, self._encoding), node))
        if bias is not None and bias_values is not None:
            integers, scale = quantize_bias(bias_values, input_scale.scale, made.scale)
            node.replace_input_with(2, self._dequantized(bias.name or "", integers, scale, 0, node))

    def _weight(self, weight: ir.Value, made: QuantizedWeight, zero: np.int8, node: ir.Node) -> ir.Value:
        """Dequantized weight; nodes that share a weight and its scales share its integers."""
        key = (weight, made.axis, int(zero), made.scale.tobytes())
        if key not in self._weights:
            scale = made.scale if made.axis is not None else made.scale.reshape(())
            shifted = made.values + zero if zero else made.values
            self._weights[key] = self._dequantized(weight.name or "", shifted, scale, made.axis, node, zero)
        return self._weights[key]

    def _dequantized(
        self,
        name: str,
        values: Array,
        scale: Array,
        axis: int | None,
        before: ir.Node,
        zero: int | np.int8 = 0,
    ) -> ir.Value:
        inputs = [
            self._constant(f"{name}_quantized", values),
            self._constant(f"{name}_scale", scale),
            self._constant(f"{name}_zero_point", np.full(scale.shape, zero, values.dtype)),
        ]
        attributes = {} if axis is None else {"axis": axis}
        restored = self._node("DequantizeLinear", name, inputs, f"{name}_dequantized", attributes)
        restored.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        restored.outputs[0].shape = ir.Shape(values.shape)
        self._graph.insert_before(before, [restored])
        return restored.outputs[0]

    def _node(
        self,
        op: str,
        tensor: str,
        inputs: list[ir.Value],
        output: str,
        attributes: Mapping[str, int] | None = None,
    ) -> ir.Node:
        node = ir.node(op, inputs, dict(attributes or {}), name=self._names.node(f"{tensor}_{op}"))
        node.outputs[0].name = self._names.tensor(output)
        return node

    def _constant(self, name: str, values: Array) -> ir.Value:
        held = ir.tensor(values)
        name = self._names.tensor(name)
        held.name = name
        value = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(held.dtype), const_value=held)
        self._graph.register_initializer(value)
        return value


def weight_zero_point(node: ir.Node, encoding: Encoding) -> np.int8:
    """What stands for zero among the integers of the weight of `node`."""
    return np.int8(-1 if runs_as_product(node, encoding.product_convs) else 0)


def _floats(value: ir.Value) -> npt.NDArray[np.float32]:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float32)
