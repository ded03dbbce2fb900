"""A model opened for editing: every node named, every constant an initializer, the type of every tensor known."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from trtcompress_graph.errors import ModelError
from trtcompress_graph.load import load_ir
from trtcompress_graph.model import Model
from trtcompress_graph.old_meanings import keep_meanings
from trtcompress_graph.quantized_ops import is_quantized

from .refusals import refuse_quantized


def open_graph(model: Model, opset: int) -> ir.Model:
    """Load `model` so that two calls give equal graphs with equal names.

    Args:
        model: what to open.
        opset: the ONNX opset that is needed; an older graph is converted to it, a newer one is left.

    Raises:
        ModelError: the graph cannot be brought to that opset, or it is quantized already.
    """
    loaded = load_ir(model)
    refuse_quantized(quantized_nodes(loaded), model)
    loaded = _upgrade(loaded, model, opset)
    common.InlinePass()(loaded)
    common.RemoveInitializersFromInputsPass()(loaded)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(loaded)
    name_nodes(loaded.graph)
    if any(value.dtype is None and value.name for node in loaded.graph for value in node.outputs):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(loaded)
    return loaded


def quantized_nodes(loaded: ir.Model) -> tuple[str, ...]:
    """Names (or operator kinds) of the nodes that work on quantized numbers, in functions of the model too."""
    held = [*loaded.graph.all_nodes(), *(node for f in loaded.functions.values() for node in f.all_nodes())]
    return tuple(node.name or node.op_type for node in held if is_quantized(node.op_type))


def name_nodes(graph: ir.Graph) -> None:
    """Give each node that has no name, or the name of an earlier one, a name of its own."""
    taken: set[str] = set()
    for index, node in enumerate(graph.all_nodes()):
        name = node.name or f"{node.op_type}_{index}"
        while name in taken:
            name = f"{name}_{index}"
        taken.add(name)
        node.name = name


def is_constant(value: ir.Value | None) -> bool:
    """True for an initializer; a graph input is none, even where it has a default."""
    return value is not None and value.is_initializer() and value.const_value is not None


def fixed_values(graph: ir.Graph) -> frozenset[ir.Value]:
    """What the nodes of a graph make of constants alone: no input can change it, and calibration reads none of it."""
    varying = set(graph.inputs)
    found: set[ir.Value] = set()
    for node in graph:
        if node.inputs and varying.isdisjoint(_read_by(node)):
            found.update(node.outputs)
        else:
            varying.update(node.outputs)
    return frozenset(found)


def _read_by(node: ir.Node) -> Iterator[ir.Value]:
    """Values that a node reads, in graphs inside it too."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            inside = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else attribute.as_graphs()
            for inner in inside:
                yield from (value for made in inner for value in _read_by(made))
                yield from inner.outputs


def opset_of(loaded: ir.Model) -> int:
    """Version of the ONNX operators that the graph uses."""
    return loaded.graph.opset_imports.get("", 1)


def _upgrade(loaded: ir.Model, model: Model, opset: int) -> ir.Model:
    before = opset_of(loaded)
    if before >= opset:
        return loaded
    try:
        proto = onnx.version_converter.convert_version(ir.to_proto(loaded), opset)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"opset {before} cannot be converted to {opset}: {error}",
            where=str(model.path),
            hint=f"export the model again with opset {opset} or newer",
        ) from error
    result = ir.from_proto(proto)
    keep_meanings(result, before)
    return result
