"""Shapes of all tensors: symbolic where axes are dynamic, concrete for given input shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .errors import ModelError
from .load import load_ir
from .model import Model
from .protos import graph_inputs, graphs
from .skeleton import skeleton

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

Shape = tuple[int, ...]


def infer(model: ir.Model) -> None:
    """Write type and shape of every tensor that can be inferred into the graph.

    Inference starts from the inputs, not from what was declared further on, which can be wrong: an exporter that
    saw one sequence may have frozen its length in the shape of an output. Names of axes are kept.
    """
    import onnx_ir as ir

    proto = skeleton(model)
    _forget_declared(proto)
    inferred = ir.from_proto(_inferred(proto, "shapes"))
    for graph, found in zip(model.graphs(), inferred.graphs(), strict=True):
        values = ir.convenience.create_value_mapping(found)
        for name, value in ir.convenience.create_value_mapping(graph).items():
            known = values.get(name)
            if known is None or value.is_graph_input() or value.is_initializer():
                continue
            value.shape = _merged(value.shape, known.shape, value.is_graph_output())
            value.type = known.type or value.type


def _inferred(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"its shapes do not fit together: {str(error).strip().splitlines()[-1]}",
            where=where,
            hint="export the model again",
        ) from error


def _merged(declared: ir.Shape | None, found: ir.Shape | None, output: bool) -> ir.Shape | None:
    """Lengths that were found, with the names that were declared."""
    import onnx_ir as ir

    if found is None or declared is None or len(found) != len(declared):
        return found if found is not None else declared
    return ir.Shape(
        [
            new if isinstance(new, int) or (output and isinstance(old, int)) or _nameless(old) else old
            for old, new in zip(declared, found, strict=True)
        ]
    )


def _nameless(dim: int | ir.SymbolicDim) -> bool:
    return not isinstance(dim, int) and dim.value in (None, "", "?")


def _forget_declared(proto: onnx.ModelProto) -> None:
    """Drop the shapes that stand behind the inputs."""
    for part in graphs(proto.graph):
        del part.value_info[:]
        for output in part.output:
            output.type.tensor_type.ClearField("shape")


def tensor_shapes(model: Model, input_shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Concrete shape of every tensor, constants too, for inputs of the given shapes.

    What ONNX's inference leaves open is found by running the model once on zeros.

    Raises:
        ModelError: a shape that does not fit the model.
    """
    return graph_shapes(load_ir(model), model, input_shapes)


def graph_shapes(graph: ir.Model, model: Model, input_shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Like `tensor_shapes`, of a graph that is already loaded from `model`."""
    proto = skeleton(graph)
    _set_inputs(proto, model, input_shapes)
    inferred = _inferred(proto, str(model.path))
    shapes = {name: tuple(value.shape.numpy()) for name, value in graph.graph.initializers.items() if value.shape}
    for part in graphs(inferred.graph):
        shapes |= {tensor.name: tuple(tensor.dims) for tensor in part.initializer}
        for value in (*part.input, *part.value_info, *part.output):
            dims = value.type.tensor_type.shape.dim
            if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
                shapes[value.name] = tuple(dim.dim_value for dim in dims)
    unknown = [v.name for n in graph.graph for v in n.outputs if v.name and v.name not in shapes]
    return shapes | _measured(model, input_shapes, unknown) if unknown else shapes


def _set_inputs(proto: onnx.ModelProto, model: Model, input_shapes: Mapping[str, Shape]) -> None:
    """Write concrete shapes at the inputs, and forget those that were declared further on."""
    for value in graph_inputs(proto):
        shape = input_shapes.get(value.name)
        declared = value.type.tensor_type.shape
        if shape is None:
            continue
        fits = len(shape) == len(declared.dim) and all(
            not dim.HasField("dim_value") or dim.dim_value in (length, -1)
            for dim, length in zip(declared.dim, shape, strict=False)
        )
        if not fits:
            spec = next(spec for spec in model.inputs if spec.name == value.name)
            raise ModelError(
                f"the shape {shape} does not fit {spec.shape}",
                where=f"{model.path}: input '{value.name}'",
                hint="give each dynamic axis a length and leave the others as they are",
            )
        for dim, length in zip(declared.dim, shape, strict=True):
            dim.dim_value = length
    _forget_declared(proto)


def _measured(model: Model, input_shapes: Mapping[str, Shape], names: list[str]) -> dict[str, Shape]:
    """Shapes of tensors as ONNX Runtime makes them, read by a `Shape` node behind each."""
    import onnx
    import onnxruntime as ort

    proto = onnx.load(model.path, load_external_data=False)
    del proto.graph.output[:]
    for index, name in enumerate(names):
        proto.graph.node.add(op_type="Shape", input=[name], output=[f"shape_of_{index}"], name=f"shape_of_{index}")
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(f"shape_of_{index}", onnx.TensorProto.INT64, [None])
        )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model.path.parent))
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feeds = {spec.name: np.zeros(input_shapes[spec.name], spec.dtype) for spec in model.inputs}
        found = session.run(None, feeds)
    except Exception as error:  # ONNX Runtime's exception classes share no base
        raise ModelError(
            f"the model does not run on inputs of the shapes {dict(input_shapes)}: {str(error).splitlines()[0]}",
            where=str(model.path),
            hint="give other lengths for the dynamic axes",
        ) from error
    return {name: tuple(map(int, got)) for name, got in zip(names, found, strict=True)}
