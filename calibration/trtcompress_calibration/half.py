"""Which nodes must stay float32 in a float16 graph, and why."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from trtcompress_graph.ranges import TensorRange

from .opening import is_constant
from .operators import MOVES
from .signature import Half, takes_half
from .trt_cache import METHOD

LIMIT = 65504 / 2
"""Greatest absolute value that calibration may have seen: half of float16's greatest, as a margin."""

MASK = 2.0**15
"""What stands for "minus infinity" in a float16 mask: with a score added, or a second mask, it is still finite."""

HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})

_LEAST_NORMAL = 2.0**-14
_LEAST = 2.0**-25
_EXACT_INTEGERS = 2048
_GROWS = frozenset(
    {"Exp", "Pow", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceLogSumExp", "CumSum", "ReduceProd"}
)
_SQUARES = frozenset({"LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization"})
_ADDS_SMALL = frozenset({"Add", "Sub", "Max", "Clip", "Where"})
_UNDOES_SMALL = frozenset({"Sqrt", "Reciprocal", "Div", "Log", "Pow", "Expand"})
_PICKS = MOVES | {"Where"}
_MASKS = frozenset({"Where", "Add", "Sub", "Clip", "Min", "Max", "ConstantOfShape"}) | MOVES
_UNIT = frozenset({"Sigmoid", "HardSigmoid", "Tanh", "Softmax", "Softsign", "Erf", "Sin", "Cos"})
"""Operators whose results lie within -1 and 1."""
_NO_GREATER = MOVES | {"Relu", "Clip", "Abs", "Neg", "Max", "Min", "MaxPool", "AveragePool", "ReduceMax", "ReduceMin"}
_NO_GREATER |= {"GlobalMaxPool", "GlobalAveragePool", "ReduceMean", "Where"}
"""Operators whose results are no greater than what they read."""
_ABSORBED = frozenset({"Add", "Relu", "Clip", "LeakyRelu", "PRelu"})
"""Operators whose inputs have no range, where an engine computes them with what makes these."""
_TAKES_HUGE = _MASKS | {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Attention", "ScatterElements"}
"""Operators to which a huge constant only says "no bound" or "hidden"; to all others it is a number."""


def float32_reasons(graph: ir.Graph, opset: int, ranges: Mapping[str, TensorRange]) -> dict[ir.Node, str]:
    """Nodes of the main graph whose floats stay float32, with the reason.

    Args:
        graph: in topological order, with the types of its tensors known.
        opset: decides which operators take float16.
        ranges: by tensor name; a tensor that is not there is taken to fit, unless its operator makes numbers grow, or
            the ranges are of a calibration cache, which tells where values are clipped and not how far they reach.
    """
    reasons: dict[ir.Node, str] = {}
    masks = mask_tensors(graph)
    shapes = _shape_arithmetic(graph)
    from_cache = any(held.method == METHOD for held in ranges.values())
    for node in graph:
        if not any(_is_float(v) for v in (*node.inputs, *node.outputs)) or takes_any_float(node):
            continue
        reason = _static_reason(node, opset, shapes)
        reason = reason or _range_reason(node, ranges, masks) or _constant_reason(node, ranges)
        reason = reason or (_untold_reason(node, ranges, masks) if from_cache else "")
        if reason:
            reasons[node] = reason
    for node in graph:
        if node not in reasons and node.op_type in _UNDOES_SMALL and _after_small(node, reasons):
            reasons[node] = _VANISHES
    _join(graph, reasons)
    return reasons


def bfloat16_reasons(graph: ir.Graph, opset: int) -> dict[ir.Node, str]:
    """The same for a bfloat16 graph, which takes no ranges: it reaches as far as float32, with 8 bits of precision."""
    reasons: dict[ir.Node, str] = {}
    shapes, counts = _shape_arithmetic(graph), _counts(graph)
    for node in graph:
        if not any(_is_float(v) for v in (*node.inputs, *node.outputs)) or takes_any_float(node):
            continue
        reason = _static_reason(node, opset, shapes, "bfloat16")
        if not reason and any(v in counts for v in node.outputs):
            reason = "it is computed from integers, which beyond 256 are not exact in BF16"
        if reason:
            reasons[node] = reason
    _join(graph, reasons)
    return reasons


def _counts(graph: ir.Graph) -> set[ir.Value]:
    """Floats that are computed from integers and constants alone, such as positions and their sines."""
    found: set[ir.Value] = set()
    for node in graph:
        read = [v for v in node.inputs if v is not None and not is_constant(v)]
        floats = [v for v in read if _is_float(v)]
        cast = node.op_type == "Cast" and any(v.dtype in _INTEGERS for v in read)
        if cast or node.op_type == "Range" or (floats and all(v in found for v in floats)):
            found.update(v for v in node.outputs if _is_float(v))
    return found


def takes_any_float(node: ir.Node) -> bool:
    """True for what reads one float tensor and writes none (`Shape`, `IsNaN`, a Cast to int64): it takes any type."""
    floats = [v for v in node.inputs if _is_float(v) or (v is not None and v.dtype in HALVES)]
    return len(floats) == 1 and not any(_is_float(v) for v in node.outputs) and not _holds_graph(node)


def mask_tensors(graph: ir.Graph) -> set[ir.Value]:
    """Tensors that hold a huge constant by design (a mask that is added before a Softmax), from constant on."""
    held: set[ir.Value | None] = {v for v in graph.initializers.values() if _is_float(v) and _huge(v)}
    found: set[ir.Value] = set()
    for node in graph:
        product = node.op_type == "Mul" and any(v in held for v in node.inputs)
        filled = node.op_type == "ConstantOfShape" and _huge_fill(node)
        if filled or product or (node.op_type in _MASKS and any(v in held for v in node.inputs)):
            held.update(node.outputs)
            found.update(node.outputs)
    return found


def fits(value: ir.Value) -> bool:
    """True where every element of a constant is a float16, or so huge that it only means "no bound"."""
    values = _array(value)
    finite = np.abs(values[np.isfinite(values)])
    return not bool(np.any((finite > 65504) & (finite < 1e6)))


_VANISHES = "it guards a division by a constant that vanishes in FP16"


def _static_reason(node: ir.Node, opset: int, shapes: set[ir.Value], half: Half = "float16") -> str:
    what = "BF16" if half == "bfloat16" else "FP16"
    if _holds_graph(node):
        return "it holds a subgraph"
    if node.domain not in ("", "ai.onnx"):
        return f"nothing is known of {node.domain}.{node.op_type} in {what}"
    if any(not isinstance(v.type, ir.TensorType) for v in node.outputs if v.type is not None):
        return "it works on sequences"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return ""
    if not takes_half(node, opset, half):
        return f"{node.op_type} is not defined for {what}"
    if node.op_type not in _PICKS and any(v in shapes and _is_float(v) for v in node.outputs):
        return "it computes a shape"
    return ""


def _range_reason(node: ir.Node, ranges: Mapping[str, TensorRange], masks: set[ir.Value]) -> str:
    floats = [v for v in (*node.inputs, *node.outputs) if v is not None and _is_float(v) and not is_constant(v)]
    for value in floats:
        measured = ranges.get(value.name or "")
        if measured is None:
            continue
        reach = measured.max if value in masks else measured.amax
        if reach > LIMIT:
            return f"FP16 would overflow: tensor '{value.name}' reaches {reach:.6g}"
        if 0 < measured.amax < _LEAST_NORMAL and value in node.outputs:
            return f"FP16 would lose tensor '{value.name}', which reaches {measured.amax:.3g} only"
    seen = ranges.get(floats[0].name or "") if floats else None
    if node.op_type in _SQUARES and seen is not None and seen.amax**2 > LIMIT:
        return f"FP16 would overflow in its sums: the square of tensor '{floats[0].name}' reaches {seen.amax**2:.6g}"
    if node.op_type in _GROWS and all(v.name not in ranges for v in node.outputs):
        return f"no range for the result of {node.op_type}, which may grow beyond FP16"
    if node.op_type == "Cast":
        result = ranges.get(node.outputs[0].name or "")
        from_integer = node.inputs[0] is not None and node.inputs[0].dtype in _INTEGERS
        if from_integer and result is not None and result.amax > _EXACT_INTEGERS:
            return f"integers up to {result.amax:.6g} are not exact in FP16"
    return ""


def _untold_reason(node: ir.Node, ranges: Mapping[str, TensorRange], masks: set[ir.Value]) -> str:
    """Why a node may overflow for all that a calibration cache says."""
    if node.op_type in _GROWS | _SQUARES:
        return f"the calibration cache does not tell whether {node.op_type} overflows in FP16"
    for value in (*node.inputs, *node.outputs):
        if value is None or not _is_float(value) or value in masks:
            continue
        if not _told(value, ranges) and not _hidden(value, ranges):
            return f"the calibration cache does not tell whether tensor '{value.name}' fits into FP16"
    return ""


def _told(value: ir.Value, ranges: Mapping[str, TensorRange]) -> bool:
    """Whether a range is known of a tensor, or of what makes no greater number of it."""
    node = value.producer()
    if value.name in ranges or is_constant(value) or (node is not None and node.op_type in _UNIT):
        return True
    if node is None or node.op_type not in _NO_GREATER:
        return False
    return all(given is None or not _is_float(given) or _told(given, ranges) for given in node.inputs)


def _hidden(value: ir.Value, ranges: Mapping[str, TensorRange]) -> bool:
    """Whether a tensor is read by what a convolution absorbs alone, whose result has a range."""
    readers = [use.node for use in value.uses()]
    if value.is_graph_output() or not readers or any(node.op_type not in _ABSORBED for node in readers):
        return False
    return all(node.outputs[0].name in ranges or _hidden(node.outputs[0], ranges) for node in readers)


def _constant_reason(node: ir.Node, ranges: Mapping[str, TensorRange]) -> str:
    for value in node.inputs:
        if value is None or not _is_float(value) or not is_constant(value):
            continue
        if not fits(value) and node.op_type not in ("Clip", "Min", "Max"):
            return f"constant '{value.name}' does not fit into FP16"
        makes_mask = node.op_type == "Mul" and _makes_mask(node, value, ranges)
        if node.op_type not in _TAKES_HUGE and not makes_mask and _huge(value):
            return f"constant '{value.name}' does not fit into FP16"
        if node.op_type in _ADDS_SMALL and _vanishes(value):
            return _VANISHES
    return ""


def _makes_mask(node: ir.Node, constant: ir.Value, ranges: Mapping[str, TensorRange]) -> bool:
    """True where the product takes the constant itself, as `(1 - mask) * least` does, or no range tells."""
    result = ranges.get(node.outputs[0].name or "")
    return result is None or abs(result.min - float(_array(constant).min())) <= 1e-3 * abs(result.min)


def _vanishes(value: ir.Value) -> bool:
    values = np.abs(_array(value))
    return values.size == 1 and bool(0 < values.max() < _LEAST)


def _after_small(node: ir.Node, reasons: Mapping[ir.Node, str]) -> bool:
    return any(reasons.get(before) == _VANISHES for before in node.predecessors())


def _shape_arithmetic(graph: ir.Graph) -> set[ir.Value]:
    """Tensors computed from shapes alone: sizes beyond 2048 are not exact in float16."""
    found: set[ir.Value] = set()
    for node in graph:
        inputs = [v for v in node.inputs if v is not None and not is_constant(v)]
        computed = bool(inputs) and all(v in found for v in inputs)
        looked_up = node.op_type == "Gather" and is_constant(node.inputs[0]) and _is_float(node.inputs[0])
        if node.op_type in ("Shape", "Size") or (computed and not looked_up and node.op_type != "ConstantOfShape"):
            found.update(node.outputs)
    return found


def _join(graph: ir.Graph, reasons: dict[ir.Node, str]) -> None:
    """What moves numbers between float32 nodes, or from a graph input to one, stays float32: no casts between."""
    for node in graph:
        if node in reasons or node.op_type not in MOVES or not _is_float(node.outputs[0]):
            continue
        sources = [v for v in node.inputs if v is not None and _is_float(v) and not is_constant(v)]
        readers = [use.node for v in node.outputs for use in v.uses()]
        from_float32 = sources and all(v.producer() is None or v.producer() in reasons for v in sources)
        if from_float32 and readers and all(r in reasons for r in readers):
            reasons[node] = "it moves numbers between FP32 nodes"


def _holds_graph(node: ir.Node) -> bool:
    return any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())


def _huge(value: ir.Value) -> bool:
    values = _array(value)
    return bool(values.size) and bool(np.any(np.isfinite(values) & (np.abs(values) >= 1e6)))


def _huge_fill(node: ir.Node) -> bool:
    attribute = node.attributes.get("value")
    return attribute is not None and bool(np.any(np.abs(attribute.as_tensor().numpy().astype(np.float64)) > 65504))


def _array(value: ir.Value) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float32)


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


_INTEGERS = frozenset({ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT32, ir.DataType.UINT64})
