"""What is read straight off an ONNX protobuf: its tensors, nodes, inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .model import Dim, TensorSpec

if TYPE_CHECKING:
    import onnx


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every graph inside its nodes (`If`, `Loop`, `Scan`), outermost first."""
    yield graph
    for node in graph.node:
        yield from _inner(node)


def _inner(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else [*attribute.graphs]:
            yield from graphs(graph)


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of the model: of its graph, of the graphs inside, and of its local functions."""
    for graph in graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        for node in function.node:
            yield node
            for graph in _inner(node):
                yield from graph.node


def tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Every stored tensor, with words for where it stands."""
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            yield f"initializer '{tensor.name}'", tensor
        for sparse in graph.sparse_initializer:
            yield f"initializer '{sparse.values.name}'", sparse.values
            yield f"indices of initializer '{sparse.values.name}'", sparse.indices
    for node in nodes(model):
        for attribute in node.attribute:
            place = f"attribute '{attribute.name}' of node '{node.name or node.op_type}'"
            for tensor in [attribute.t] if attribute.HasField("t") else [*attribute.tensors]:
                yield place, tensor
            for sparse in (
                [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [*attribute.sparse_tensors]
            ):
                yield place, sparse.values
                yield place, sparse.indices


def texts(model: onnx.ModelProto) -> Iterator[object]:
    """Every name in the model, as it stands there."""
    for entry in model.opset_import:
        yield entry.domain
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output, *function.attribute)
    for node in nodes(model):
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for graph in graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            yield value.name
            yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for _, tensor in tensors(model):
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))


def external_locations(model: onnx.ModelProto) -> set[str]:
    """Files that hold external data, as written in the model."""
    return {
        entry.value
        for _, tensor in tensors(model)
        if tensor.data_location == tensor.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that must be fed; old IR versions list the initializers among the inputs too."""
    held = {tensor.name for tensor in model.graph.initializer}
    held |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return [value for value in model.graph.input if value.name not in held]


def input_specs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Inputs that must be fed."""
    return tuple(tensor_spec(value) for value in graph_inputs(model))


def output_specs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """What the model gives, in order."""
    return tuple(tensor_spec(value) for value in model.graph.output)


def tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """The frozen form of a declared tensor; an axis without a name is called `<tensor>_<index>`."""
    import onnx

    declared = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type).name if declared.elem_type else "undefined"
    return TensorSpec(value.name, dtype, tuple(_dim(value.name, i, d) for i, d in enumerate(declared.shape.dim)))


def _dim(tensor: str, index: int, dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    named = dim.dim_param not in ("", "?")  # "?" is how some exporters write that they do not know
    return dim.dim_param if named else f"{tensor}_{index}"
