"""Fold what scales and shifts channels behind a convolution (batch norm, Mul, Add) into its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Affine:
    """`scale * x + shift` per channel, and the initializer that the shift comes from."""

    scale: Array
    shift: Array
    source: ir.Value


def fold_affine(model: ir.Model) -> None:
    """Fold constant per-channel scales and shifts into the convolutions before them.

    The convolution's weight and bias keep their names; where it had no bias it takes the name of the shift's
    initializer, and its output takes the name of the last tensor that was folded away.
    """
    for node in list(model.graph):
        if node.op_type in ("Conv", "ConvTranspose") and _own_constant(node.inputs[1]):
            while (following := _only_reader(node.outputs[0])) is not None:
                affine = _affine(following, node)
                if affine is None or not _bias_is_own(node):
                    break
                _apply(node, affine, following)


def _only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads the value."""
    readers = list(value.uses())
    if value.is_graph_output() or len(readers) != 1 or readers[0].node.graph is not value.graph:
        return None
    return readers[0].node


def _constant(value: ir.Value | None) -> Array | None:
    """What an initializer holds, where that is fixed and of a float type."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    array = value.const_value.numpy()
    return array if array.dtype in (np.float16, np.float32, np.float64) else None


def _own_constant(value: ir.Value | None) -> bool:
    """True for a constant that no other node reads, so that it may change."""
    return value is not None and value.is_initializer() and len(value.uses()) == 1 and _constant(value) is not None


def _bias_is_own(conv: ir.Node) -> bool:
    return len(conv.inputs) < 3 or conv.inputs[2] is None or _own_constant(conv.inputs[2])


def _affine(node: ir.Node, conv: ir.Node) -> _Affine | None:
    """The node as scale and shift per output channel of the convolution; None where it is something else."""
    if node.op_type == "BatchNormalization":
        return _batch_norm(node)
    if node.op_type not in ("Mul", "Add"):
        return None
    source = node.inputs[1] if node.inputs[0] is conv.outputs[0] else node.inputs[0]
    array = _constant(source)
    weight = conv.inputs[1]
    if source is None or array is None or weight is None or weight.const_value is None:
        return None
    rank, channels = len(weight.const_value.shape), _channels(conv)
    axis = array.ndim - (rank - 1)
    per_channel = 0 <= axis <= 1 and array.size == array.shape[axis] == channels
    if not (array.size == 1 and array.ndim <= rank) and not per_channel:
        return None
    values = np.broadcast_to(array.astype(np.float64).reshape(-1), channels)
    if node.op_type == "Mul":
        return _Affine(values, np.zeros(channels), source)
    return _Affine(np.ones(channels), values, source)


def _batch_norm(node: ir.Node) -> _Affine | None:
    """Batch norm with fixed statistics; in training mode they are those of the batch."""
    used = [output for output in node.outputs[1:] if output.uses() or output.is_graph_output()]
    arrays = [_constant(value) for value in node.inputs[1:5]]
    if node.attributes.get_int("training_mode", 0) or used:
        return None
    if any(array is None for array in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    source = node.inputs[2]
    return None if source is None else _Affine(scale, beta - mean * scale, source)


def _channels(conv: ir.Node) -> int:
    """Output channels. A transposed convolution holds [in, out / groups, ...]."""
    value = conv.inputs[1]
    shape = value.const_value.shape.numpy() if value is not None and value.const_value is not None else (0, 0)
    return int(shape[0]) if conv.op_type == "Conv" else int(shape[1]) * conv.attributes.get_int("group", 1)


def _scaled(conv: ir.Node, weight: Array, scale: Array) -> Array:
    """The weight with its output channels scaled."""
    tail = (1,) * (weight.ndim - 2)
    if conv.op_type == "Conv":
        return (weight * scale.reshape(-1, 1, *tail)).astype(weight.dtype)
    groups = conv.attributes.get_int("group", 1)
    grouped = weight.reshape(groups, -1, *weight.shape[1:]) * scale.reshape(groups, 1, -1, *tail)
    return grouped.reshape(weight.shape).astype(weight.dtype)


def _apply(conv: ir.Node, affine: _Affine, following: ir.Node) -> None:
    """Put the affine into the convolution's weights and take the node behind it away."""
    import onnx_ir as ir

    graph, weight = conv.graph, conv.inputs[1]
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    array = _constant(weight)
    if not isinstance(graph, ir.Graph) or weight is None or array is None:
        return
    old = _constant(bias)
    shifted = affine.shift if old is None else old * affine.scale + affine.shift
    weight.const_value = ir.tensor(_scaled(conv, array, affine.scale), name=weight.name)

    last = following.outputs[0]
    name, output = last.name, conv.outputs[0]
    output.shape, output.type = last.shape, last.type
    ir.convenience.replace_all_uses_with(last, output, replace_graph_outputs=True)
    graph.remove(following, safe=True)
    output.name = name

    if bias is None and shifted.any():
        bias = _new_bias(graph, conv, affine.source)
    if bias is not None:
        bias.const_value = ir.tensor(shifted.astype(array.dtype), name=bias.name)
        bias.shape, bias.type = ir.Shape(shifted.shape), ir.TensorType(bias.const_value.dtype)


def _new_bias(graph: ir.Graph, conv: ir.Node, source: ir.Value) -> ir.Value:
    """An initializer for the bias: under the name of the shift, unless that is still read elsewhere."""
    import onnx_ir as ir

    if source.uses() or not source.is_initializer():
        weight = conv.inputs[1]
        stem = str(weight.name if weight is not None else conv.name)
        bias = ir.Value(name=_free(graph, f"{stem}.bias"))
    else:
        graph.initializers.pop(str(source.name))
        bias = ir.Value(name=source.name)
    graph.initializers.add(bias)
    conv.resize_inputs(3)
    conv.replace_input_with(2, bias)
    return bias


def _free(graph: ir.Graph, name: str) -> str:
    while name in graph.initializers:
        name += "_"
    return name
