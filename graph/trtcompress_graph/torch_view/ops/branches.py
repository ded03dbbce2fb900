"""Operators that hold graphs, and constants."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, fx

from ..attributes import value as attribute_value
from ..builder import Builder, output_count
from ..control import Branch, Loop, Scan
from ..registry import op
from ..tensors import known_type
from ..values import Sizes


@op("If", build=True)
def if_(builder: Builder, node: ir.Node) -> Any:
    """The branch that is taken; one alone where the condition is a constant."""
    condition = builder.inputs(node)[0]
    then, other = (node.attributes[name].as_graph() for name in ("then_branch", "else_branch"))
    if isinstance(condition, Sizes):
        condition = condition.items() if condition.array.ndim == 0 else condition.items()[0]
    if isinstance(condition, (Tensor, bool, int)):
        return _inlined(builder, then if bool(condition) else other)
    (taken, of_then), (left, of_other) = _inner(builder, then), _inner(builder, other)
    operands: dict[fx.Node, Any] = {held.node: held for held in (*of_then, *of_other)}
    places = {node: place for place, node in enumerate(operands)}
    module = Branch(
        taken, left, tuple(places[held.node] for held in of_then), tuple(places[held.node] for held in of_other)
    )
    return _outputs(builder.call_module("branch", module, condition, *operands.values()), output_count(node))


def _inlined(builder: Builder, graph: ir.Graph) -> tuple[Any, ...]:
    builder.run(list(graph))
    return tuple(builder.value(value) for value in graph.outputs)


def _outputs(made: Any, count: int) -> tuple[Any, ...]:
    return tuple(made[index] for index in range(count))


def _inner(builder: Builder, graph: ir.Graph) -> tuple[fx.GraphModule, list[Any]]:
    """The module of a graph inside a node, and what it reads from around it."""
    inner = Builder(builder.state, builder.opset, outer=builder)
    for value in graph.inputs:
        inner.placeholder(value)
    inner.run(list(graph))
    return inner.finish(graph, always_tuple=True), inner.captured


@op("Loop", build=True)
def loop(builder: Builder, node: ir.Node) -> Any:
    """A graph again and again."""
    most, condition, *states = builder.inputs(node)
    count = None if most is None else builder.numbers(most)
    body, captured = _inner(builder, node.attributes["body"].as_graph())
    given = [builder.tensor(state) for state in states]
    going = None if condition is None else builder.tensor(condition)
    collected = tuple(_looks(value) for value in node.attributes["body"].as_graph().outputs[1 + len(states) :])
    made = builder.call_module("loop", Loop(body, len(states), collected), _one(count), going, *given, *captured)
    return _outputs(made, output_count(node))


def _looks(value: ir.Value) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and type, as far as they are known; a length that is not is 0."""
    lengths = tuple(n if isinstance(n, int) else 0 for n in value.shape or ())
    return lengths, known_type(value.dtype) or torch.float32


def _one(count: Any) -> Any:
    return count[0] if isinstance(count, tuple) else count


@op("Scan", build=True)
def scan(builder: Builder, node: ir.Node) -> Any:
    """A graph for each slice of its inputs."""
    named = {key: attribute.value for key, attribute in node.attributes.items() if key != "body"}
    given = [builder.tensor(held) for held in builder.inputs(node)]
    body, captured = _inner(builder, node.attributes["body"].as_graph())
    count = named["num_scan_inputs"]
    carried = len(given) - count
    results = len(node.outputs) - carried
    inputs = _pairs(named, "input", count)
    module = Scan(body, carried, inputs, _pairs(named, "output", results))
    return _outputs(builder.call_module("scan", module, *given, *captured), output_count(node))


def _pairs(named: dict[str, Any], kind: str, count: int) -> tuple[tuple[int, int], ...]:
    axes = named.get(f"scan_{kind}_axes") or (0,) * count
    directions = named.get(f"scan_{kind}_directions") or (0,) * count
    return tuple(zip(axes, directions, strict=True))


@op("Constant", build=True)
def constant(builder: Builder, node: ir.Node) -> Any:
    """A constant that is an output; the others are initializers."""
    ((name, attribute),) = node.attributes.items()
    held = attribute_value(attribute, node)
    kind = torch.float32 if "float" in name else torch.int64
    return held if isinstance(held, Tensor) else torch.tensor(held, dtype=kind)
