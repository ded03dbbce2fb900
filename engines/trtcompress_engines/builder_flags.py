"""The builder flags of TensorRT 8 that let it take the types that a graph is written in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trtcompress_graph.model import Model

from .sparsity import sparse_weights

if TYPE_CHECKING:
    import onnx

_ROUNDING = ("QuantizeLinear", "DequantizeLinear")


def builder_flags(model: Model) -> tuple[str, ...]:
    """Names of `BuilderFlag`. Later versions are strongly typed: of these they read SPARSE_WEIGHTS alone."""
    sparse = ("SPARSE_WEIGHTS",) if sparse_weights(model.path) else ()
    return (*type_flags(model), *sparse)


def type_flags(model: Model) -> tuple[str, ...]:
    """Those of types: FP16 and BF16 for float16 and bfloat16, INT8 for Q/DQ; none for a float32 graph."""
    import onnx

    flags: dict[int, str] = {onnx.TensorProto.FLOAT16: "FP16", onnx.TensorProto.BFLOAT16: "BF16"}
    graph = onnx.load(model.path, load_external_data=False).graph
    found = {flags[kind] for kind in _types(graph) if kind in flags}
    if any(node.op_type in _ROUNDING for part in _graphs(graph) for node in part.node):
        found.add("INT8")
    return tuple(sorted(found))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, and the branches and bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(inner)


def _types(graph: onnx.GraphProto) -> Iterator[int]:
    """Types of weights, of constants and of what casts give."""
    for part in _graphs(graph):
        yield from (initializer.data_type for initializer in part.initializer)
        for node in part.node:
            for attribute in node.attribute:
                if attribute.name == "to" and node.op_type == "Cast":
                    yield attribute.i
                elif attribute.HasField("t"):
                    yield attribute.t.data_type
