"""LSTM with integer weights: ONNX Runtime's DynamicQuantizeLSTM, which rounds what it reads by itself."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtcompress_graph.fresh import FreshNames

from .kinds import integer
from .opening import is_constant
from .weights import quantize_weight

DOMAIN = "com.microsoft"
_INPUTS = 8
"""Inputs that both operators have: x, weights, recurrent weights, bias, lengths, states h and c, peepholes."""


def lstm_refusal(node: ir.Node, least: int) -> str:
    """Why the weights of an LSTM cannot be integers; empty where they can.

    Args:
        node: an LSTM.
        least: number of weights from which it pays.
    """
    weights = node.inputs[1:3]
    if integer(node, "layout", 0) != 0:
        return "no INT8 kernel for an LSTM with the batch first"
    if not all(is_constant(value) for value in weights):
        return "its weight is not constant"
    arrays = [value.const_value.numpy() for value in weights if value is not None and value.const_value is not None]
    if not all(np.isfinite(array).all() for array in arrays):
        return "a weight holds NaN or infinity"
    if sum(math.prod(array.shape) for array in arrays) < least:
        return "its weights are too few for INT8 to pay"
    return ""


def write_lstm(loaded: ir.Model, node: ir.Node, bits: int, names: FreshNames) -> None:
    """Make an LSTM a DynamicQuantizeLSTM, in place; its weights are s8, a scale a row of each gate.

    A weight `w` [directions, 4 * hidden, features] becomes `w_quantized` [directions, features, 4 * hidden], and
    `w_scale` and `w_zero_point` [directions, 4 * hidden].
    """
    loaded.opset_imports[DOMAIN] = 1
    node.domain, node.op_type = DOMAIN, "DynamicQuantizeLSTM"
    node.attributes.pop("layout", None)
    node.resize_inputs(_INPUTS + 4)
    for place in (1, 2):
        weight = node.inputs[place]
        assert weight is not None
        assert weight.const_value is not None
        floats = np.asarray(weight.const_value.numpy(), np.float32)
        rows = quantize_weight(floats.reshape(-1, floats.shape[2]), 0, bits, "float32")
        name, gates = str(weight.name), floats.shape[:2]
        turned = np.ascontiguousarray(rows.values.reshape(floats.shape).transpose(0, 2, 1))
        last = _INPUTS + 2 * (place - 1)
        node.replace_input_with(place, _stored(loaded.graph, names.tensor(f"{name}_quantized"), turned))
        node.replace_input_with(last, _stored(loaded.graph, names.tensor(f"{name}_scale"), rows.scale.reshape(gates)))
        zeros = np.zeros(gates, np.int8)
        node.replace_input_with(last + 1, _stored(loaded.graph, names.tensor(f"{name}_zero_point"), zeros))
        if not weight.uses() and not weight.is_graph_output():
            del loaded.graph.initializers[name]


def _stored(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    held = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(held.dtype), const_value=held)
    graph.register_initializer(value)
    return value
