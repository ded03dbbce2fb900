"""The builder flags of TensorRT 8 that let it take the types that a graph is written in."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from trtcompress_graph.model import Model

from ..sparsity import sparse_weights

_FLAGS: dict[int, str] = {TensorProto.FLOAT16: "FP16", TensorProto.BFLOAT16: "BF16"}
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")


def builder_flags(model: Model) -> tuple[str, ...]:
    """Names of `BuilderFlag`. Later versions are strongly typed: of these they read SPARSE_WEIGHTS alone."""
    graph = onnx.load(model.path, load_external_data=False).graph
    found = {_FLAGS[kind] for kind in _types(graph) if kind in _FLAGS}
    if any(node.op_type in _ROUNDING for node in graph.node):
        found.add("INT8")
    if sparse_weights(model.path):
        found.add("SPARSE_WEIGHTS")
    return tuple(sorted(found))


def _types(graph: onnx.GraphProto) -> Iterator[int]:
    """Types of weights, of constants and of what casts give."""
    yield from (initializer.data_type for initializer in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and node.op_type == "Cast":
                yield attribute.i
            elif attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t.data_type
