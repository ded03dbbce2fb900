"""What decides a tensor: the values of the inputs, or their shapes alone.

A batch holds a tensor that follows from shapes alone, such as an embedding of positions, once for all its samples, so
counting it batch by batch would let the batch size decide how much it weighs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtcompress_graph.protos import graph_inputs

if TYPE_CHECKING:
    import onnx

_SHAPE_READERS = frozenset({"Shape", "Size"})

_SHAPED_BY_PARAMETERS = frozenset(
    ["Reshape", "Expand", "Tile", "Slice", "Pad", "Resize", "Upsample", "TopK", "Squeeze", "Unsqueeze", "Split"]
)
"""Kinds whose inputs after the first decide the shape of the result."""

_SHAPED_BY_VALUES = frozenset(
    [
        "NonZero",
        "Unique",
        "Compress",
        "NonMaxSuppression",
        "Range",
        "ConstantOfShape",
        "OneHot",
        "If",
        "Loop",
        "Scan",
        "StringSplit",
        "SplitToSequence",
        "SequenceAt",
        "CenterCropPad",
    ]
)
"""Kinds where the values of any input decide the shape of the result."""

_RANDOM = frozenset(
    ["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"]
)


@dataclass(frozen=True, slots=True)
class Dependence:
    """What decides the tensors that the nodes of a graph make.

    Attributes:
        on_shapes: no input value can change their values; in doubt a tensor is not among them.
        shaped_by_values: input values can change their shape; in doubt a tensor is among them.
    """

    on_shapes: frozenset[str]
    shaped_by_values: frozenset[str]


def dependence(proto: onnx.ModelProto) -> Dependence:
    """Follow the inputs of a graph through its nodes."""
    by_value = {value.name for value in graph_inputs(proto)}
    shaped: set[str] = set()
    on_shapes = []
    for node in proto.graph.node:
        names = list(read_by(node))
        varying = [name for name in names if name in by_value]
        if _shape_varies(node, varying) or any(name in shaped for name in names):
            shaped.update(node.output)
        if node.op_type in _SHAPE_READERS:
            depends = node.input[0] in shaped
        else:
            depends = bool(varying) or node.op_type in _RANDOM
        if depends:
            by_value.update(node.output)
        else:
            on_shapes.extend(node.output)
    return Dependence(frozenset(on_shapes), frozenset(shaped))


def _shape_varies(node: onnx.NodeProto, varying: list[str]) -> bool:
    if node.op_type in _SHAPED_BY_VALUES or node.domain not in ("", "ai.onnx", "com.microsoft"):
        return bool(varying)
    return node.op_type in _SHAPED_BY_PARAMETERS and any(name in varying for name in node.input[1:])


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those inside its graphs included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else [*attribute.graphs]:
            for inner in graph.node:
                yield from read_by(inner)
            yield from (value.name for value in graph.output)
