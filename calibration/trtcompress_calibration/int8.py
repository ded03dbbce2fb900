"""Which nodes run in INT8, and why the others do not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.errors import DataError
from trtcompress_graph.ranges import TensorRange

from .kinds import (
    activation_inputs,
    averages_places,
    bias_of,
    channel_axis,
    integer,
    is_depthwise,
    is_weighted,
    multiplies_activations,
    number,
    other_type,
    text,
    weight_of,
)
from .lstm import lstm_refusal
from .opening import fixed_values, is_constant
from .operators import SHRINKS
from .scales import activation_scale

Measured = Mapping[str, TensorRange]

_COSTS = "its inputs or its result are not INT8, so that INT8 would only cost"
_SLOWER = "the INT8 kernel for {} is slower than the float kernel"
_ZEROED = "most of what tensor '{}' holds would become zero: its range is too wide for 8 bits"
_FOLDED = 2
"""Rectifiers of one kind behind a node that ONNX Runtime folds; of a third it folds none."""

_SMALL = "its weights are too few for INT8 to pay where its input is not INT8 anyway"


@dataclass(frozen=True, slots=True)
class Choice:
    """Nodes that run in INT8, and a reason for each node that could not."""

    nodes: frozenset[ir.Node]
    reasons: Mapping[ir.Node, str]


def choose_int8(graph: ir.Graph, encoding: Encoding, ranges: Measured, barred: Mapping[ir.Node, str]) -> Choice:
    """Choose the nodes of the main graph that an INT8 kernel should run.

    What multiplies by constant weights is chosen for itself, a small matrix product where its input is INT8 anyway.
    What joins, pools or moves is chosen where its inputs are INT8 anyway and its result is read as INT8 (or is far
    smaller than what it reads): alone it would only cost.

    Args:
        graph: the main graph, in topological order.
        encoding: has the kinds of operators with kernels.
        ranges: by tensor name.
        barred: nodes that must not be chosen, and why.

    Raises:
        DataError: what multiplies by weights reads a tensor that calibration never saw.
    """
    reasons: dict[ir.Node, str] = {}
    fixed = fixed_values(graph)
    for node in graph:
        reason = barred.get(node) or _refusal(node, encoding, ranges, fixed)
        if reason:
            reasons[node] = reason
    fit = [node for node in graph if node not in reasons]
    recurrent = {node for node in fit if node.op_type == "LSTM"}
    fit = [node for node in fit if node not in recurrent]
    chosen = {node for node in fit if _pays_alone(node, encoding)}
    chosen |= _followers(fit, chosen, encoding)
    for node in fit:
        if node not in chosen:
            reasons[node] = _reason(node, encoding)
    return Choice(frozenset(chosen | recurrent), reasons)


def _reason(node: ir.Node, encoding: Encoding) -> str:
    """Why a node that could run in INT8 should not."""
    if is_weighted(node):
        return _SMALL
    return _SLOWER.format(node.op_type) if node.op_type in encoding.slower else _COSTS


def result_of(node: ir.Node, encoding: Encoding) -> tuple[ir.Value, ...]:
    """Tensors on which Q/DQ stands when the output of `node` is INT8: behind the rectifiers that are absorbed."""
    return tuple((node, *absorbed_by(node, encoding))[-1].outputs)


def absorbed_by(node: ir.Node, encoding: Encoding) -> tuple[ir.Node, ...]:
    """Rectifiers, one behind the other, that vanish in the range of the node's INT8 output.

    None where that range is the input's too.
    """
    if not encoding.folded or encoding.symmetric or node.op_type in encoding.shared_scale_ops:
        return ()
    found: list[ir.Node] = []
    while (after := _folded(node, encoding)) is not None:
        if [each.op_type for each in found].count(after.op_type) == _FOLDED:
            break
        found.append(after)
        node = after
    return tuple(found)


def _folded(node: ir.Node, encoding: Encoding) -> ir.Node | None:
    """The rectifier that alone reads the result of `node`, where its bounds lie around zero."""
    if len(node.outputs) != 1 or node.outputs[0].is_graph_output():
        return None
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type not in encoding.folded or uses[0].node.graph is not node.graph:
        return None
    return uses[0].node if _holds_zero(uses[0].node) else None


def has_range(value: ir.Value, encoding: Encoding, ranges: Measured) -> bool:
    """True where the tensor, or the tensor that it was moved from, has a threshold."""
    return _range_of(value, encoding, ranges) is not None


def _range_of(value: ir.Value, encoding: Encoding, ranges: Measured) -> TensorRange | None:
    measured = ranges.get(value.name or "")
    if measured is not None and measured.threshold is not None:
        return measured
    producer = value.producer()
    if producer is None or producer.op_type not in encoding.shared_scale_ops:
        return None
    source = producer.inputs[0]
    return None if source is None else _range_of(source, encoding, ranges)


def _pays_alone(node: ir.Node, encoding: Encoding) -> bool:
    """True for what multiplies so much that INT8 pays though its input has to be quantized for it."""
    weight = weight_of(node)
    if weight is None or weight.shape is None:
        return multiplies_activations(node)
    return node.op_type not in ("Gemm", "MatMul") or math.prod(weight.shape.numpy()) >= encoding.product_weights


def _followers(fit: Iterable[ir.Node], weighted: Collection[ir.Node], encoding: Encoding) -> set[ir.Node]:
    """Nodes that stand between INT8 nodes, or multiply by few weights behind one.

    What is joined to INT8 is quantized for it: the whole that they make would have to be otherwise.
    """
    held: set[ir.Value | None] = set()
    for node in weighted:
        held.update(node.inputs[i] for i in activation_inputs(node))
        held.update(result_of(node, encoding))
    found: list[ir.Node] = []
    for node in fit:
        joined = any if node.op_type == "Concat" else all
        if node not in weighted and joined(node.inputs[i] in held for i in activation_inputs(node)):
            found.append(node)
            if node.op_type not in encoding.slower:
                held.update(result_of(node, encoding))
    kept = set(weighted)
    for node in reversed(found):
        pays = node.op_type in SHRINKS or is_weighted(node)
        if pays or any(reads_int8(v, kept) for v in result_of(node, encoding)):
            kept.add(node)
    return kept - set(weighted)


def reads_int8(value: ir.Value, chosen: Collection[ir.Node]) -> bool:
    """True where a chosen node reads `value` as an activation."""
    return any(use.node in chosen and use.idx in activation_inputs(use.node) for use in value.uses())


def _refusal(node: ir.Node, encoding: Encoding, ranges: Measured, fixed: Collection[ir.Value]) -> str:
    """Why `node` cannot run in INT8; empty where it can. No input of the graph can change what is in `fixed`."""
    other = other_type(node, "INT8 is")
    if other:
        return other
    if node.op_type == "LSTM" and encoding.lstm_weights:
        return lstm_refusal(node, encoding.lstm_weights)
    if node.domain not in ("", "ai.onnx") or node.op_type not in encoding.ops:
        return f"no INT8 kernel for {node.op_type}"
    if len(node.outputs) > 1 and node.op_type != "Split":
        return f"no INT8 kernel for {node.op_type} with several outputs"
    if node.op_type == "Resize" and text(node, "mode", "nearest") != "nearest":
        return "no exact INT8 kernel for an interpolating Resize"
    if node.op_type == "ReduceMean" and not averages_places(node):
        return "no INT8 kernel for a ReduceMean over other axes than all behind the second"
    if multiplies_activations(node) and not encoding.activation_products:
        return "both inputs are activations, for which INT8 is no faster"
    for i in activation_inputs(node):
        value = node.inputs[i]
        if value is None or is_constant(value) or value in fixed:
            return f"input {i} is constant"
        if value.dtype != ir.DataType.FLOAT:
            return f"tensor '{value.name}' is not float32"
    weights = _weights_refusal(node, encoding) if is_weighted(node) else ""
    return weights or _range_refusal(node, encoding, ranges)


def _weights_refusal(node: ir.Node, encoding: Encoding) -> str:
    weight, bias = weight_of(node), bias_of(node)
    if weight is None or not is_constant(weight):
        return "its weight is not constant"
    if weight.dtype != ir.DataType.FLOAT or weight.shape is None or len(weight.shape) < 2:
        return f"weight '{weight.name}' is not a float32 matrix"
    assert weight.const_value is not None
    if not np.isfinite(weight.const_value.numpy()).all():
        return f"weight '{weight.name}' holds NaN or infinity"
    if node.op_type == "Conv" and not is_depthwise(node) and integer(node, "group", 1) > 1:
        held = int(weight.shape.numpy()[1])
        if held < encoding.group_channels:
            return f"{held} channels a group are too few for INT8 to pay"
    if node.op_type == "Gemm" and (
        number(node, "alpha", 1) != 1 or (bias is not None and number(node, "beta", 1) != 1)
    ):
        return "alpha or beta is not 1"
    if encoding.quantized_bias and bias is not None:
        axis = channel_axis(node)
        channels = weight.shape[axis] if axis is not None else None
        if not is_constant(bias) or bias.shape is None or tuple(bias.shape) != (channels,):
            return "its bias is not one constant a channel"
        assert bias.const_value is not None
        if not np.isfinite(bias.const_value.numpy()).all():
            return f"bias '{bias.name}' holds NaN or infinity"
    return ""


def _range_refusal(node: ir.Node, encoding: Encoding, ranges: Measured) -> str:
    read = [v for i in activation_inputs(node) if (v := node.inputs[i]) is not None]
    written = result_of(node, encoding) if node.op_type in encoding.int8_outputs else ()
    for value in (*read, *written):
        measured = _range_of(value, encoding, ranges)
        if measured is not None:
            if _mostly_zeroed(measured, encoding):
                return _ZEROED.format(value.name)
            continue
        if is_weighted(node) and value in read and value.name not in ranges:
            raise DataError(
                f"tensor '{value.name}' has no range",
                where=f"node '{node.name}' ({node.op_type})",
                hint=f"calibrate this very model, or leave the node in float: quantize --skip '{node.name}'",
            )
        return f"no range for tensor '{value.name}'"
    return ""


def _mostly_zeroed(measured: TensorRange, encoding: Encoding) -> bool:
    """True where more than three in five of the values that are not zero would be rounded to it.

    Spectra, whose few loud values set the step, lose their quiet ones so; the features of networks hardly ever do.
    """
    if encoding.activation == "f8" or not measured.bulk:
        return False
    return measured.bulk < float(activation_scale(measured, encoding).scale) / 2


def _holds_zero(node: ir.Node) -> bool:
    """True where zero passes the activation unchanged, so that its bounds lie around the INT8 range."""
    for bound, sign in zip(node.inputs[1:3], (1, -1), strict=False):
        if bound is None:
            continue
        if not is_constant(bound) or bound.const_value is None or sign * float(bound.const_value.numpy()) > 0:
            return False
    return True
