"""Which tensors follow from the shapes of the inputs alone, such as embeddings of positions.

A batch holds such a tensor once for all its samples, so counting it batch by batch would let the batch size decide how
much it weighs.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def follows_from_shapes(proto: onnx.ModelProto) -> frozenset[str]:
    """Tensors made by nodes whose values no input value can change; in doubt a tensor is not among them."""
    by_value = {value.name for value in graph_inputs(proto)}
    by_shape: set[str] = set()  # whose shape depends on the values of inputs
    found = []
    for node in proto.graph.node:
        names = list(read_by(node))
        varying = [name for name in names if name in by_value]
        if _shape_varies(node, varying) or any(name in by_shape for name in names):
            by_shape.update(node.output)
        if node.op_type in _SHAPE_READERS:
            depends = node.input[0] in by_shape
        else:
            depends = bool(varying) or node.op_type in _RANDOM
        if depends:
            by_value.update(node.output)
        else:
            found.extend(node.output)
    return frozenset(found)


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
