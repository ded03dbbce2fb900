"""What every node of a graph runs in under an encoding, and why."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from trtcompress_graph.encoding import Encoding, NodePrecision, Precision, PrecisionPlan
from trtcompress_graph.errors import ConfigError
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

if TYPE_CHECKING:
    import onnx_ir as ir


_GROUPED = "a convolution in groups gets larger and loses most in FP8"
"""Measured on MobileNetV2: with them a plan of 11.4 MB and a cosine of 0.85 at the output, without 9.7 MB and 0.91."""


def plan_precision(
    model: Model,
    ranges: Ranges,
    encoding: Encoding,
    *,
    skip: Sequence[str] = (),
    kept: Mapping[str, str] = MappingProxyType({}),
) -> PrecisionPlan:
    """Decide the precision of every node.

    Args:
        model: a float model.
        ranges: of its tensors.
        encoding: what the target prefers.
        skip: patterns (`*`, `?`) of the names of nodes that are not quantized.
        kept: names of further nodes that are not, and why.

    Raises:
        ConfigError: a pattern of `skip` matches no node.
        DataError: a tensor that should be quantized has no range.
        ModelError: the model is quantized already.
    """
    from .opening import open_graph, opset_of

    loaded = open_graph(model, needed_opset(encoding))
    graph = loaded.graph
    barred = {**kept, **dict.fromkeys(_skipped([node.name or "" for node in graph.all_nodes()], skip), "skipped")}
    float32 = _float32_reasons(graph, opset_of(loaded), ranges, encoding)
    int8, reasons = _int8(graph, encoding, ranges, barred, float32)
    nodes = []
    for node in graph.all_nodes():
        precision: Precision
        reason = ""
        if node.graph is not graph:
            precision, reason = "float32", "it is in a subgraph"
        elif node in int8:
            precision = _quantized(node, encoding)
        else:
            reason = float32.get(node) or reasons.get(node, "")
            precision = "float32" if node in float32 else encoding.float_type
            if encoding.activation == "f8":
                reason = reason.replace("INT8", "FP8")
        nodes.append(NodePrecision(node.name or "", node.op_type, precision, reason))
    return PrecisionPlan(encoding.name, tuple(nodes))


def _quantized(node: ir.Node, encoding: Encoding) -> Precision:
    """Embedding tables have 8 bits where other weights have 4."""
    return "weight-int8" if encoding.integers and node.op_type == "Gather" else encoding.quantized


def needed_opset(encoding: Encoding) -> int:
    """Least opset that can hold the encoding.

    Scales a channel came with 13, scales in float16 and FP8 with 19, blocks and INT4 with 21, convolutions in BF16
    with 22.
    """
    if encoding.float_type == "bfloat16":
        return 22
    if encoding.integers:
        return 21
    if encoding.float_type == "float16" or encoding.activation == "f8":
        return 19
    return 13 if encoding.int8 else 1


def _float32_reasons(graph: ir.Graph, opset: int, ranges: Ranges, encoding: Encoding) -> dict[ir.Node, str]:
    if encoding.float_type == "float32":
        return {}
    from .half import bfloat16_reasons, float32_reasons

    if encoding.float_type == "bfloat16":
        return bfloat16_reasons(graph, opset)
    return float32_reasons(graph, opset, ranges.tensors)


def _int8(
    graph: ir.Graph, encoding: Encoding, ranges: Ranges, named: Mapping[str, str], kept: Mapping[ir.Node, str]
) -> tuple[set[ir.Node], Mapping[ir.Node, str]]:
    """Nodes that are quantized: those that are placed, and those that the engine moves a pair over or absorbs."""
    if encoding.integers:
        from .formats.choose import choose_weights

        chosen, refused = choose_weights(graph, encoding, named)
        return set(chosen), refused
    if encoding.activation is None:
        return set(), {}
    from .int8 import absorbed_by, choose_int8
    from .kinds import integer
    from .layout import lay_out, residual_branches, written

    barred = {node: named[name] for node in graph if (name := node.name or "") in named} | dict(kept)
    if encoding.activation == "f8":
        barred |= {node: _GROUPED for node in graph if node.op_type == "Conv" and integer(node, "group", 1) != 1}
    choice = choose_int8(graph, encoding, ranges.tensors, barred)
    pairs = lay_out(graph, choice.nodes, encoding, ranges.tensors)
    int8 = set(choice.nodes)
    writing = [node for node in choice.nodes if written(node, choice.nodes, encoding)]
    int8 |= {absorbed for node in writing for absorbed in absorbed_by(node, encoding)}
    whole = {pair.value for pair in pairs if pair.whole}
    for node in reversed(list(graph)):
        moved = node.op_type in encoding.shared_scale_ops and not encoding.int8_outputs
        if moved and node not in barred and all(v in whole for v in node.outputs):
            int8.add(node)
            whole |= {v for v in node.inputs if v is not None and len(v.uses()) == 1}
    reasons = dict(choice.reasons)
    if encoding.quantize_residual_adds:
        for node, _ in residual_branches(graph, choice.nodes, encoding, ranges.tensors):
            reasons[node] = "a convolution adds it where it writes its result"
    return int8, reasons


def _skipped(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matches = fnmatch.filter(names, pattern)
        if not matches:
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4)
            raise ConfigError(
                f"no node is called '{pattern}'",
                where="quantize.skip",
                hint=f"nearest names: {', '.join(near)}" if near else "trtcompress inspect lists the nodes",
            )
        found.update(matches)
    return found
