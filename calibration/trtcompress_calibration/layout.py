"""Where Q/DQ pairs stand: which tensors, with which scale, and who reads them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.errors import DataError

from .int8 import Measured, has_range, reads_int8, result_of
from .kinds import activation_inputs
from .opening import is_constant
from .operators import WEIGHTED
from .scales import Scale, activation_scale
from .sharing import shared_ranges

Use = tuple[ir.Node, int]


@dataclass(frozen=True, slots=True)
class Pair:
    """One Q/DQ pair: the tensor, its scale, and the inputs that read it quantized.

    `whole`: everybody reads it quantized, a graph output included.
    """

    value: ir.Value
    scale: Scale
    readers: tuple[Use, ...]
    whole: bool


def lay_out(graph: ir.Graph, int8: Collection[ir.Node], encoding: Encoding, ranges: Measured) -> tuple[Pair, ...]:
    """The Q/DQ pairs on activations, in the order of the graph.

    Raises:
        DataError: a tensor to quantize has no range.
    """
    readers: dict[ir.Value, list[Use]] = {}
    for node in graph:
        if node in int8:
            for i in activation_inputs(node):
                value = node.inputs[i]
                assert value is not None
                readers.setdefault(value, []).append((node, i))
    if encoding.quantize_residual_adds:
        for use in residual_branches(graph, int8, encoding, ranges):
            readers.setdefault(_read(use), []).append(use)
    whole = {value for node in graph if node in int8 for value in written(node, int8, encoding)}
    values = [v for v in _in_order(graph) if v in readers or v in whole]
    measured = shared_ranges(graph, values, encoding, ranges)
    pairs = []
    for value in values:
        uses = [(u.node, u.idx) for u in value.uses()] if value in whole else readers[value]
        if value not in measured:
            blamed = uses[0][0] if uses else value.producer()
            raise DataError(
                f"tensor '{value.name}' has no range",
                where=f"node '{blamed.name if blamed else ''}'",
                hint="calibrate this very model: trtcompress calibrate",
            )
        all_read = value in whole or (len(uses) == len(value.uses()) and not value.is_graph_output())
        pairs.append(Pair(value, activation_scale(measured[value], encoding), tuple(uses), all_read))
    return tuple(pairs)


def residual_branches(
    graph: ir.Graph, int8: Collection[ir.Node], encoding: Encoding, ranges: Measured
) -> tuple[Use, ...]:
    """Inputs of residual Adds that get Q/DQ, so that a convolution can add them where it writes its result.

    The convolution that can run last (the deeper one, of two) absorbs the Add; the other branch, the one that lives
    longer, is read as INT8 (NVIDIA's advice for explicit quantization).
    """
    depth = _depths(graph)
    found = []
    for node in graph:
        if node.op_type != "Add" or len(node.inputs) != 2:
            continue
        ends = [(depth[made], i) for i, v in enumerate(node.inputs) if (made := _convolution(v, int8)) is not None]
        if not ends:
            continue
        last = max(ends)[1]
        other = node.inputs[1 - last]
        if other is None or is_constant(other) or not _same_shape(other, node.inputs[last]):
            continue
        if has_range(other, encoding, ranges):
            found.append((node, 1 - last))
    return tuple(found)


def _depths(graph: ir.Graph) -> dict[ir.Node, int]:
    """Length of the longest path from an input to each node."""
    depth: dict[ir.Node, int] = {}
    for node in graph:
        depth[node] = 1 + max((depth.get(before, 0) for before in node.predecessors()), default=0)
    return depth


def _convolution(value: ir.Value | None, int8: Collection[ir.Node]) -> ir.Node | None:
    """The INT8 convolution that makes `value` for this one reader."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    producer = value.producer()
    return producer if producer is not None and producer in int8 and producer.op_type == "Conv" else None


def _same_shape(a: ir.Value, b: ir.Value | None) -> bool:
    """False where both shapes are known and one is broadcast."""
    if b is None or a.shape is None or b.shape is None:
        return True
    pairs = zip(a.shape, b.shape, strict=False)
    return len(a.shape) == len(b.shape) and all(x == y for x, y in pairs if isinstance(x, int) and isinstance(y, int))


def written(node: ir.Node, int8: Collection[ir.Node], encoding: Encoding) -> tuple[ir.Value, ...]:
    """Tensors that the kernel of `node` writes as INT8."""
    if not encoding.int8_outputs:
        return ()
    results = result_of(node, encoding)
    if node.op_type in encoding.int8_outputs:
        return results
    return tuple(v for v in results if node.op_type in WEIGHTED and reads_int8(v, int8))


def _in_order(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def _read(use: Use) -> ir.Value:
    value = use[0].inputs[use[1]]
    assert value is not None
    return value
