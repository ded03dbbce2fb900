"""Tensors that share one scale, because what lies between them only moves or picks numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.ranges import TensorRange

from .kinds import activation_inputs
from .scales import joint


def shared_ranges(
    graph: ir.Graph, quantized: Iterable[ir.Value], encoding: Encoding, ranges: Mapping[str, TensorRange]
) -> dict[ir.Value, TensorRange]:
    """The range of each quantized tensor, widened to all those that it shares a scale with.

    A tensor shares with what it is moved to only where that is quantized too, at once or after further moves.
    A tensor for which no range is known is left out.
    """
    wanted = set(quantized)
    root: dict[ir.Value, ir.Value] = {}

    def find(value: ir.Value) -> ir.Value:
        while (above := root.get(value, value)) is not value:
            value = above
        return value

    for node in reversed(list(graph)):
        if node.op_type not in encoding.shared_scale_ops:
            continue
        results = [v for v in node.outputs if v in wanted or v in root]
        for value in results:
            for i in activation_inputs(node):
                source = node.inputs[i]
                if source is not None:
                    root[find(source)] = find(value)
                    root.setdefault(source, find(value))
    groups: dict[ir.Value, list[TensorRange]] = {}
    for value in {**dict.fromkeys(wanted), **dict.fromkeys(root)}:
        measured = ranges.get(value.name or "")
        if measured is not None and measured.threshold is not None:
            groups.setdefault(find(value), []).append(measured)
    return {value: joint(groups[find(value)]) for value in wanted if find(value) in groups}
