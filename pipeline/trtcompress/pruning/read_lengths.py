"""Lengths that a graph reads as numbers, such as the width in 1 / sqrt(width): they must not change with a cut.

A length that `Shape` or `Size` reads may end in the shape input of a Reshape, which follows the cut (`parameters`). All
else that is computed from it has no labels and keeps its value: it gets the length from before the cut. Where one value
ends in both, the arithmetic between is doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from math import gcd, prod
from typing import TYPE_CHECKING

import numpy as np

from trtcompress_graph.fresh import FreshNames

from .coupler import Coupler
from .factors import Factor, Shape, covered
from .parameters import SHAPE_PLACES, CutGraph
from .shape_values import computes, measured_axes, measures, run

if TYPE_CHECKING:
    import onnx_ir as ir


def pin_read_lengths(graph: ir.Graph, coupler: Coupler) -> None:
    """Leave dynamic axes whole whose lengths are read as numbers: what they were before a cut is not known."""

    def dynamic(value: ir.Value) -> set[int]:
        dims = value.shape
        return {a for a in covered(coupler.of(value)) if dims is None or not isinstance(dims[a], int)}

    for node, axes in _Readings(graph, coupler.shapes, coupler.factors, dynamic).as_numbers():
        for factor in coupler.of(node.inputs[0]):
            if hit := [place for place, axis in enumerate(factor.axes) if axis in axes]:
                coupler.labels.merge(factor.labels, hit, f"{node.op_type} '{node.name}' reads its length as a number")


def keep_numbers(
    graph: ir.Graph, plan: CutGraph, factors: Mapping[str, Collection[Factor]], names: FreshNames
) -> dict[ir.Value, ir.Value]:
    """Let the numbers that a graph computes from lengths which are cut stay as they were.

    Returns:
        New outputs of the model, with those whose names they have to get (`give_names`).
    """
    read = _Readings(graph, plan.shapes, factors, plan.changed)
    uncut = _Uncut(graph, plan, read, names)
    for value, node, place in read.numbers():
        node.replace_input_with(place, uncut.of(value))
    outputs = {}
    for index, value in enumerate(graph.outputs):
        kept = uncut.of(value)
        if kept is not value:
            graph.outputs[index] = kept
            outputs[kept] = value
    return outputs


def give_names(outputs: Mapping[ir.Value, ir.Value], names: FreshNames) -> None:
    """Give outputs the names, types and shapes of those that they stand for."""
    for kept, value in outputs.items():
        kept.type, kept.shape, name = value.type, value.shape and value.shape.copy(), value.name
        value.name = names.tensor(f"{name}.cut")
        kept.name = name


class _Readings:
    """What depends on some lengths and on stored numbers alone, and where it ends: in shape inputs, in other inputs.

    Args:
        graph: the graph.
        shapes: of every tensor.
        factors: of tensors; what is computed into a tensor that has some is no arithmetic with shapes.
        axes: of a tensor, those whose lengths are asked about.
    """

    def __init__(
        self,
        graph: ir.Graph,
        shapes: Mapping[str, Shape],
        factors: Mapping[str, Collection[Factor]],
        axes: Callable[[ir.Value], Collection[int]],
    ) -> None:
        self._graph, self._shapes, self._factors = graph, shapes, factors
        self._asked: dict[ir.Value, frozenset[int]] = {}
        for node in graph:
            if measures(node) and (x := node.inputs[0]) is not None and (asked := axes(x)):
                self._asked[node.outputs[0]] = frozenset(asked)
        self._order: dict[ir.Value, None] = {}
        self._held: set[ir.Value] = set()
        self._to_shape: set[ir.Value] = set()
        self._to_number: set[ir.Value] = set()
        if self._asked:
            self._follow()

    def holds(self, value: ir.Value) -> bool:
        """Whether a value depends on the lengths that are asked about."""
        return value in self._held

    def follows(self, value: ir.Value) -> bool:
        """Whether a value becomes that of after the cut: what is read from a tensor, and what ends in a shape input."""
        return value in self._asked or value in self._to_shape

    def as_numbers(self) -> Iterable[tuple[ir.Node, frozenset[int]]]:
        """Nodes that read lengths which end in a number, with their axes."""
        for value, asked in self._asked.items():
            node = value.producer()
            assert node is not None
            axes = set(asked) if value.is_graph_output() else set()
            for reader, place in value.uses():
                if self._ends(reader, place)[1]:
                    axes |= self._read(node, reader)
            if axes := axes & asked:
                yield node, frozenset(axes)

    def numbers(self) -> list[tuple[ir.Value, ir.Node, int]]:
        """Where a value that must follow the cut elsewhere is read for numbers alone: value, reader and place."""
        return [
            (value, node, place)
            for value in self._order
            if self.holds(value) and self.follows(value)
            for node, place in value.uses()
            if self._ends(node, place) == (False, True) and self._carries(value, node)
        ]

    def _follow(self) -> None:
        """In the order of the graph what depends on lengths, and backwards where it ends."""
        for node in self._graph:
            known = measures(node) or computes(node, self._order.__contains__)
            if known and not self._factors.get(str(node.outputs[0].name)):
                value = node.outputs[0]
                self._order[value] = None
                places = [(given, place) for place, given in enumerate(node.inputs) if given is not None]
                if value in self._asked or any(
                    given in self._held and not self._is_shape(node, place) and self._carries(given, node)
                    for given, place in places
                ):
                    self._held.add(value)
        for value in reversed(self._order):
            ends = [self._ends(node, place) for node, place in value.uses()]
            if any(shape for shape, _ in ends):
                self._to_shape.add(value)
            if value.is_graph_output() or any(number for _, number in ends):
                self._to_number.add(value)

    def _ends(self, node: ir.Node, place: int) -> tuple[bool, bool]:
        """Whether what a node reads there ends in a shape input, and whether in a number."""
        if self._is_shape(node, place):
            return True, False
        made = node.outputs[0]
        return (made in self._to_shape, made in self._to_number) if made in self._order else (False, True)

    def _is_shape(self, node: ir.Node, place: int) -> bool:
        """Graphs inside a node are left as they are, and so are shapes that depend on more."""
        given = node.inputs[place]
        known = node.graph is self._graph and given in self._order and bool(self._shapes.get(str(given.name)))
        return known and node.domain in ("", "ai.onnx") and SHAPE_PLACES.get(node.op_type) == place

    def _carries(self, value: ir.Value, reader: ir.Node) -> bool:
        """Whether the reader of a length takes one that is asked about; whoever reads other values does."""
        node = value.producer()
        return value not in self._asked or node is None or bool(self._asked[value] & self._read(node, reader))

    def _read(self, node: ir.Node, reader: ir.Node) -> set[int]:
        """The axes whose lengths somebody takes from what a Shape or Size reads."""
        rank = len(self._shapes.get(str(node.inputs[0].name), ())) if node.inputs[0] is not None else 0
        axes = list(range(rank)) if node.op_type == "Size" else measured_axes(node, rank)
        stored = [(v, v.const_value) for v in reader.inputs[1:] if v is not None]
        if reader.op_type in ("Gather", "Slice") and all(held is not None for _, held in stored):
            feeds = {str(v.name): held.numpy() for v, held in stored if held is not None}
            return set(run(reader, {str(node.outputs[0].name): np.array(axes), **feeds}).reshape(-1).tolist())
        return set(axes)


class _Uncut:
    """Values as they were before a cut, each made once, behind those that they are made from."""

    def __init__(self, graph: ir.Graph, plan: CutGraph, read: _Readings, names: FreshNames) -> None:
        self._graph, self._plan, self._read, self._names = graph, plan, read, names
        self._made: dict[ir.Value, ir.Value] = {}

    def of(self, value: ir.Value) -> ir.Value:
        """The value itself where it does not change."""
        if not self._read.holds(value) or not self._read.follows(value):
            return value
        if value not in self._made:
            node = value.producer()
            assert node is not None
            self._made[value] = self._lengths(node) if measures(node) else self._doubled(node)
        return self._made[value]

    def _lengths(self, node: ir.Node) -> ir.Value:
        """Lengths are multiples of what they are after the cut."""
        import onnx_ir as ir

        from .surgery import initializer

        x = node.inputs[0]
        before, after = np.array(self._plan.before(x)), np.array(self._plan.after(x))
        if node.op_type == "Size":
            pairs = [(prod(before.tolist()), prod(after.tolist()))]
        else:
            pairs = [(int(before[axis]), int(after[axis])) for axis in measured_axes(node, len(before))]
        rows = [(one // gcd(one, other), other // gcd(one, other)) for one, other in pairs]
        value, last = node.outputs[0], node
        for op, numbers in zip(("Mul", "Div"), zip(*rows, strict=True), strict=True):
            if set(numbers) == {1}:
                continue
            name = f"{node.name}.uncut_{op.lower()}"
            array = np.array(numbers[0] if node.op_type == "Size" else numbers, np.int64)
            stored = initializer(self._graph, self._names.tensor(name), array)
            last = self._behind(last, ir.node(op, [value, stored], name=self._names.node(name)))
            value = last.outputs[0]
        return value

    def _doubled(self, node: ir.Node) -> ir.Value:
        import onnx_ir as ir

        given = [None if value is None else self.of(value) for value in node.inputs]
        name = self._names.node(f"{node.name}.uncut")
        made = ir.Node(
            node.domain, node.op_type, given, list(node.attributes.values()), version=node.version, name=name
        )
        return self._behind(node, made).outputs[0]

    def _behind(self, node: ir.Node, made: ir.Node) -> ir.Node:
        made.outputs[0].name = self._names.tensor(str(made.name))
        self._graph.insert_after(node, made)
        return made
