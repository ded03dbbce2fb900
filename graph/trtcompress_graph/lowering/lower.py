"""A graph written in an older opset: each node as it is where the older operator says the same, else by a rule.

Sources: the operators' versions in ONNX (`Operators.md`, `Changelog.md`, and their schemas in `onnx.defs`). The
converter of the onnx package goes down for few operators alone, and drops what it does not know.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from ..errors import ModelError
from ..load import save_ir
from ..model import Model
from .rules import RULES
from .schemas import misfit
from .state import Lowering

_LARGEST = (1 << 31) - 1
"""Bytes that protobuf checks in memory."""

_STEPS = 4
"""Rules that follow each other at one node, at the most."""


def lower(model: Model, opset: int, path: Path, without: Collection[str] = ()) -> Model:
    """Write the graph in an older opset; names of tensors, inputs and outputs stay.

    Args:
        model: the graph.
        opset: that the nodes of ONNX's own domain are to be in; a graph that is older stays as old as it is.
        path: file to write.
        without: operators that are to be written by others, though the opset has them.

    Raises:
        ModelError: an operator has no counterpart there; it is named.
    """
    proto = onnx.load(model.path)
    _infer(proto, model.path)
    held = {entry.domain: entry for entry in proto.opset_import}
    entry = held.get("") or held["ai.onnx"]
    found = Lowering(proto, entry.version, min(opset, entry.version), frozenset(without))
    where = str(model.path)
    _lower_graph(proto.graph, found, where)
    proto.graph.initializer.extend(found.constants)
    entry.version = found.opset
    proto.ir_version = min(proto.ir_version, onnx.helper.find_min_ir_version_for(proto.opset_import))
    try:
        if proto.ByteSize() < _LARGEST:
            onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        told = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot be brought down to opset {opset}: {told}", where=where) from error
    return save_ir(ir.from_proto(proto), path)


def _infer(proto: onnx.ModelProto, path: Path) -> None:
    """Fill in types and shapes of inner tensors where they are not told; weights in files of their own are not read."""
    light = onnx.load(path, load_external_data=False)
    told = {value.name for value in proto.graph.value_info}
    try:
        inferred = onnx.shape_inference.infer_shapes(light)
    except onnx.shape_inference.InferenceError as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"its types or shapes contradict each other: {first}", where=str(path)) from error
    proto.graph.value_info.extend(value for value in inferred.graph.value_info if value.name not in told)


def _lower_graph(graph: onnx.GraphProto, found: Lowering, where: str) -> None:
    nodes = [lowered for node in graph.node for lowered in _lowered(node, found, where)]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _lower_graph(attribute.g, found, where)
    del graph.node[:]
    graph.node.extend(nodes)


def _lowered(node: onnx.NodeProto, found: Lowering, where: str, steps: int = _STEPS) -> Iterator[onnx.NodeProto]:
    """The node, or what is written in its place."""
    if node.domain not in ("", "ai.onnx"):
        yield node
        return
    why = misfit(node, found)
    rule = RULES.get(node.op_type) if why else None
    written = rule(node, found) if rule and steps else None
    if written is not None:
        for one in written:
            yield from _lowered(one, found, where, steps - 1)
        return
    if why:
        raise ModelError(
            f"{node.op_type} cannot be written in opset {found.opset}: {why}",
            where=f"{where}: node '{node.name or node.output[0]}'",
            hint="export the model with that opset, or without that operator",
        )
    yield node
