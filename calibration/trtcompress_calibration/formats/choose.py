"""Which weights and tables become integers by themselves, and why others do not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from trtcompress_graph.encoding import Encoding

from ..kinds import bias_of, integer, number, other_type, weight_of
from ..opening import is_constant

_LEAST_BLOCK = 16
"""Of MatMulNBits."""

_NO_WEIGHTS = "it has no weights"


def choose_weights(
    graph: ir.Graph, encoding: Encoding, barred: Mapping[str, str]
) -> tuple[frozenset[ir.Node], Mapping[ir.Node, str]]:
    """Nodes of the main graph that read integers instead of floats, and a reason for each that does not.

    Args:
        graph: with the types of its tensors known.
        encoding: one whose writer is not `qdq`.
        barred: names of nodes that must not be chosen, and why.
    """
    reasons = {node: barred.get(node.name or "") or _refusal(node, encoding) for node in graph}
    chosen = frozenset(node for node, reason in reasons.items() if not reason)
    return chosen, {node: reason for node, reason in reasons.items() if reason != _NO_WEIGHTS}


def is_lookup(node: ir.Node) -> bool:
    """True for a Gather of rows of a constant table."""
    return node.op_type == "Gather" and is_constant(node.inputs[0]) and not is_constant(node.inputs[1])


def outputs_by_features(node: ir.Node) -> bool:
    """True where the weight of a product is stored as [outputs, features]."""
    return node.op_type == "Gemm" and bool(integer(node, "transB", 0))


def block_of(weight: ir.Value, node: ir.Node, encoding: Encoding) -> int:
    """Features of the weight that share a scale; 0 is all of them.

    TensorRT takes blocks that divide the features without rest; elsewhere the last one may be shorter, and where there
    are fewer features than a block has, the least power of two that holds them does.
    """
    features = features_of(weight, node)
    if encoding.writer == "block-dq" and encoding.block and features % encoding.block:
        return 0
    if encoding.writer == "nbits":
        return min(encoding.block, max(_LEAST_BLOCK, 1 << (features - 1).bit_length()))
    return encoding.block


def features_of(weight: ir.Value, node: ir.Node) -> int:
    """How many numbers one output of a product is made of."""
    return lengths(weight)[1 if outputs_by_features(node) else 0]


def lengths(value: ir.Value) -> tuple[int, ...]:
    """Shape of a stored tensor."""
    assert value.const_value is not None
    return tuple(int(n) for n in value.const_value.shape.numpy())


def _refusal(node: ir.Node, encoding: Encoding) -> str:
    other = other_type(node, "integer weights are")
    if other:
        return other
    if encoding.tables and is_lookup(node):
        return _table_refusal(node)
    if node.domain not in ("", "ai.onnx") or node.op_type not in encoding.ops:
        if not any(is_constant(v) and v is not None and len(lengths(v)) > 1 for v in node.inputs):
            return _NO_WEIGHTS
        return "embedding tables alone are integers" if not encoding.ops else "no kernel with integer weights"
    return _weight_refusal(node, encoding)


def _table_refusal(node: ir.Node) -> str:
    table, places = node.inputs[0], node.inputs[1]
    assert table is not None
    if places is None or places.shape is None or not len(places.shape):
        return "it looks up a single row, or how many is not known"
    if table.dtype != ir.DataType.FLOAT or integer(node, "axis", 0) != 0:
        return "it looks up no rows of floats"
    shape = lengths(table)
    if len(shape) != 2 or shape[1] < 2:
        return "its rows are too short for a scale each"
    return _finite(table)


def _weight_refusal(node: ir.Node, encoding: Encoding) -> str:
    weight, read = weight_of(node), node.inputs[0]
    if weight is None or not is_constant(weight):
        return _NO_WEIGHTS
    if weight.dtype != ir.DataType.FLOAT or len(lengths(weight)) != 2:
        return f"weight '{weight.name}' is not a float32 matrix"
    beta = 1 if bias_of(node) is None else number(node, "beta", 1)
    if node.op_type == "Gemm" and (integer(node, "transA", 0) or number(node, "alpha", 1) != 1 or beta != 1):
        return "alpha or beta is not 1, or it reads a transposed matrix"
    if is_constant(read) or read is None or (read.shape is not None and len(read.shape) < 2):
        return "what it reads is constant, or a vector"
    features = features_of(weight, node)
    block = block_of(weight, node, encoding) or features
    blocks = -(-features // block)
    if encoding.weight_bits * blocks * block + 32 * blocks >= 32 * features:
        return f"weight '{weight.name}' has {features} features only: with scales its integers would not be smaller"
    return _finite(weight)


def _finite(value: ir.Value) -> str:
    assert value.const_value is not None
    finite = bool(np.isfinite(value.const_value.numpy()).all())
    return "" if finite else f"'{value.name}' holds NaN or infinity"
