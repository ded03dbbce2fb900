"""What a cut costs, found from shapes alone: the graph is not touched."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from copy import copy
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from trtcompress_graph.cost import graph_cost, node_macs, parameter_names

from .coupling import Coupling
from .cut import Alive, Cut
from .factors import Factor, Ints, Shape
from .plan import Cost

if TYPE_CHECKING:
    import onnx_ir as ir


class Costs:
    """Counts cuts of one graph; some milliseconds each.

    Args:
        graph: the full graph.
        coupling: what lives and dies together in it.
        shapes: concrete shape of every tensor.

    Attributes:
        full: of the full graph.
    """

    def __init__(self, graph: ir.Graph, coupling: Coupling, shapes: Mapping[str, Shape]) -> None:
        self._coupling = coupling
        used = {str(value.name) for node in graph for value in (*node.inputs, *node.outputs) if value is not None}
        self._shapes = {name: shape for name, shape in shapes.items() if name in used}
        self._joint: dict[str, tuple[Factor, ...]] = {}
        plain: list[tuple[str, int, Ints]] = []
        for name, factors in coupling.factors.items():
            if name in self._shapes and all(len(factor.axes) == 1 for factor in factors):
                plain += [(name, factor.axes[0], factor.labels) for factor in factors]
            elif name in self._shapes:
                self._joint[name] = factors
        self._places = [(name, axis) for name, axis, _ in plain]
        self._labels = np.concatenate([labels for _, _, labels in plain]) if plain else np.zeros(0, np.int64)
        self._starts = np.cumsum([0, *(len(labels) for _, _, labels in plain)])[:-1]
        cost = graph_cost(graph, self._shapes)
        self.full = Cost(macs=cost.macs, parameters=cost.parameters)
        self._stored = parameter_names(graph) & self._shapes.keys()
        self._biases: frozenset[str] = frozenset()
        self._near: dict[str, list[ir.Node]] = {}
        for node in graph:
            for value in (*node.inputs, *node.outputs):
                if value is not None and value.name in coupling.factors:
                    self._near.setdefault(str(value.name), []).append(node)

    def with_biases(self, outputs: Iterable[str]) -> Costs:
        """The same, with a bias more for each of these outputs of layers; their channels lie on axis 1."""
        more = copy(self)
        more._biases = frozenset(outputs)
        return more

    def of(self, units: Collection[int]) -> Cost:
        """The cost of the graph without these units.

        Raises:
            PruneError: what lives is not a box.
        """
        cut = Cut.of(self._coupling.relations, units)
        changed: dict[str, list[int]] = {}
        if self._places:
            living = np.ones(cut.count, np.int64)
            living[list(cut.dead)] = 0
            lengths = np.add.reduceat(living[self._labels], self._starts)
            for (name, axis), length in zip(self._places, lengths.tolist(), strict=True):
                if length != self._shapes[name][axis]:
                    changed.setdefault(name, list(self._shapes[name]))[axis] = length
        alive = Alive(self._joint, cut)
        joint = {name: alive.shape(name, self._shapes[name]) for name in self._joint if alive.touched(name)}
        return self._changed({name: tuple(shape) for name, shape in changed.items()} | joint)

    def _changed(self, new: Mapping[str, Shape]) -> Cost:
        """The cost with some shapes changed: only nodes that they touch are counted anew."""
        shapes = {**self._shapes, **new}
        nodes = {node for name in new for node in self._near.get(name, ())}
        macs = sum(node_macs(node, shapes) - node_macs(node, self._shapes) for node in nodes)
        stored = new.keys() & self._stored
        parameters = sum(prod(new[name]) - prod(self._shapes[name]) for name in stored)
        parameters += sum(shapes[name][1] for name in self._biases)
        return Cost(macs=self.full.macs + macs, parameters=self.full.parameters + parameters)
