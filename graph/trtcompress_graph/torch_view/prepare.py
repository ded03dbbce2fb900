"""The graph that a view is built from: opset 20 or newer, functions inlined, constants as initializers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from ..branches import tell_apart
from ..errors import ModelError
from ..load import load_ir, read_model
from ..model import Model
from ..naming import name_nodes
from ..opset import upgrade
from ..shapes import infer

Source = Model | str | Path | onnx.ModelProto
"""A model that was read, the path of one, or a protobuf."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A graph to build from.

    Attributes:
        model: the graph.
        trainable: names of stored tensors that can be found again in the file.
        where: the file, for messages.
        wiring: of the graph as it came, see `wiring`.
    """

    model: ir.Model
    trainable: frozenset[str]
    where: str
    wiring: str


def load(source: Source) -> tuple[ir.Model, str]:
    """The graph as it is, and words for where it came from.

    Raises:
        MissingPathError, ModelError: see `read_model`.
    """
    if isinstance(source, onnx.ModelProto):
        return ir.from_proto(source), "model"
    model = source if isinstance(source, Model) else read_model(Path(source))
    return ir.external_data.load_to_model(load_ir(model)), str(model.path)


def prepare(source: Source) -> Prepared:
    """Bring a model into the form that the builder walks.

    Raises:
        ModelError: it cannot be read, or cannot be brought to opset 20.
    """
    if isinstance(source, onnx.ModelProto):
        source = copied(source)  # tensors that get other names below are the protobuf's own
    graph, where = load(source)
    held = wiring(graph)
    trainable = told_apart(stored(graph))
    if graph.functions:
        common.InlinePass()(graph)
    common.RemoveInitializersFromInputsPass()(graph)
    graph = upgrade(graph, where)
    name_nodes(graph)
    tell_apart(graph)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    _infer(graph)
    return Prepared(graph, trainable, where, held)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in memory of its own."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def wiring(model: ir.Model) -> str:
    """SHA-256 over the nodes of a graph and what they read and make, without what it stores."""
    told = hashlib.sha256()
    for graph in model.graphs():
        for node in graph:
            if node.op_type == "Constant":
                continue
            names = [[value and value.name for value in values] for values in (node.inputs, node.outputs)]
            plain = {name: attr.value for name, attr in node.attributes.items() if attr.type in _PLAIN}
            told.update(repr((node.domain, node.op_type, *names, sorted(plain.items()))).encode())
        told.update(repr([[value.name for value in values] for values in (graph.inputs, graph.outputs)]).encode())
    return told.hexdigest()


_PLAIN = frozenset(
    [
        *(ir.AttributeType.INT, ir.AttributeType.INTS, ir.AttributeType.FLOAT, ir.AttributeType.FLOATS),
        *(ir.AttributeType.STRING, ir.AttributeType.STRINGS),
    ]
)


def _infer(graph: ir.Model) -> None:
    """Fill in ranks and types where that is possible; the view does without."""
    try:
        infer(graph)
    except ModelError:
        return


def stored(model: ir.Model) -> list[tuple[str, ir.Value | ir.Node]]:
    """Every stored tensor by name: initializers, and `Constant` nodes, in graphs inside nodes too."""
    found: list[tuple[str, ir.Value | ir.Node]] = []
    for graph in model.graphs():
        found += [(name, value) for name, value in graph.initializers.items()]
        found += [(str(node.outputs[0].name), node) for node in graph if node.op_type == "Constant"]
    return found


def told_apart(held: Iterable[tuple[str, ir.Value | ir.Node]]) -> frozenset[str]:
    """The names that no two stored tensors share; branches may give one to different ones."""
    return frozenset(name for name, count in Counter(name for name, _ in held).items() if count == 1)
