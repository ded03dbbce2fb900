"""Coupling: which elements of which axis of which tensor live and die together, exact to the index.

After label propagation on the ONNX graph as in "Structurally Prune Anything" (arXiv 2403.18955), here to the index and
with the operators of data movement run on the labels themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .coupler import Coupler
from .factors import Factor, Ints, Shape, varying
from .groups import Group, Left, group_labels, left_whole
from .read_lengths import pin_read_lengths
from .relations import Relations
from .rules import RULES
from .trial import Trial

if TYPE_CHECKING:
    import onnx_ir as ir

_READ_SHAPE = ("Shape", "Size", "ConstantOfShape", "Range", "Constant", "RandomNormal", "RandomUniform")
"""Operators that read no values of their inputs, or nothing at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Coupling:
    """What can be cut in a graph.

    Attributes:
        factors: labels of every tensor, weights too.
        relations: which labels fall with which.
        groups: what can be cut, in the order of the graph.
        left: what cannot be cut, and why.
        normalized: by node that takes statistics, the labels that they run over.
    """

    factors: Mapping[str, tuple[Factor, ...]]
    relations: Relations
    groups: tuple[Group, ...]
    left: tuple[Left, ...]
    normalized: Mapping[str, Ints]

    def group(self, name: str) -> Group:
        """The group of this name.

        Raises:
            KeyError: there is none.
        """
        return next(group for group in self.groups if group.name == name)


def analyse(graph: ir.Graph, shapes: Mapping[str, Shape]) -> Coupling:
    """Find what can be cut.

    Every group is tried: the smallest cut of it must leave each tensor a box and each data movement consistent. Labels
    that hold together only along the columns of a grid (the channels of a channel shuffle) are tied along them, and
    all is settled again.

    Args:
        graph: of which all constants are initializers.
        shapes: concrete shape of every tensor, as far as it is known.
    """
    coupler = walk(graph, shapes)
    weights = [name for name in _read(graph) if name in coupler.constants and coupler.factors.get(name)]
    for _ in range(_ROUNDS):
        found, failed = _settled(graph, coupler, weights)
        if not _tie_columns(coupler, found, failed):
            break
    return found


_ROUNDS = 3
"""How often columns may be tied; one round does in all graphs that are known."""


def _read(graph: ir.Graph) -> Iterable[str]:
    """Names of what the nodes read, in their order, once each."""
    return dict.fromkeys(str(value.name) for node in graph for value in node.inputs if value is not None)


def _settled(graph: ir.Graph, coupler: Coupler, weights: list[str]) -> tuple[Coupling, list[frozenset[int]]]:
    """The coupling as it stands, and label sets that could not be cut for want of equal or consistent parts."""
    roots = coupler.labels.roots()
    factors = {
        name: tuple(_settled_factor(factor.axes, roots[factor.labels]) for factor in held)
        for name, held in coupler.factors.items()
        if held
    }
    relations = Relations.of(coupler.labels, roots, _alone(factors))
    grouping = group_labels(weights, factors, relations)
    why = dict(grouping.why)
    good, failed = [], []
    trial = Trial(graph, coupler, factors)
    for group in grouping.groups:
        reason = trial.fails(relations, group)
        if reason is None:
            good.append(group)
            continue
        fallen = relations.closure(group.units)
        failed.append(frozenset(group.units))
        for label in fallen:
            why.setdefault(label, reason)
    open_ = _open([*failed, *grouping.uneven], good, relations)
    normalized = {name: np.unique(roots[labels]) for name, labels in coupler.normalized.items()}
    inner = tuple(Left(name, None, reason) for name, reason in coupler.skipped)
    left = (*left_whole(weights, factors, good, why), *inner)
    return Coupling(factors, relations, tuple(good), left, normalized), open_


def _alone(factors: Mapping[str, tuple[Factor, ...]]) -> dict[int, str]:
    """Labels that are all that a tensor has along an axis: without them nothing would be left of it."""
    ends = {name: [(int(f.labels.min()), int(f.labels.max())) for f in held] for name, held in factors.items()}
    return {
        least: f"nothing would be left of '{name}'"
        for name, held in ends.items()
        for least, most in held
        if least == most
    }


def _settled_factor(axes: tuple[int, ...], labels: Ints) -> Factor:
    """A factor without the axes along which its labels have become the same."""
    kept = varying(labels) if len(axes) > 1 else ()
    if not kept or len(kept) == len(axes):
        return Factor(axes, labels)
    place = tuple(slice(None) if i in kept else 0 for i in range(len(axes)))
    return Factor(tuple(axes[i] for i in kept), np.ascontiguousarray(labels[place]))


def _open(failed: list[frozenset[int]], good: list[Group], relations: Relations) -> list[frozenset[int]]:
    """Those of the sets that no good group cuts, be it with the heads that they are in.

    Channels inside the groups of a convolution are worth more than its groups.
    """
    if not failed:
        return []
    units = [unit for group in good if group.kind != "groups" for unit in group.units]
    inside = [relations.closure([unit]) for unit in units if unit in relations.children]
    covered = frozenset(units).union(*inside)
    return [labels for labels in failed if labels.isdisjoint(covered)]


def _tie_columns(coupler: Coupler, found: Coupling, failed: Iterable[frozenset[int]]) -> bool:
    """Tie the columns of the widest grid of each set that failed; True if that changed anything."""
    rows = [f.rows() for held in found.factors.values() for f in held if len(f.axes) > 1] + [*found.relations.grids]
    grids = [(grid, frozenset(np.unique(grid).tolist())) for grid in rows if len(grid) > 1]
    tied = False
    for labels in failed:
        inside = [grid for grid, held in grids if not labels.isdisjoint(held)]
        widest = max(inside, key=lambda grid: grid.shape[1], default=None)
        if widest is not None and (widest != widest[:1]).any():
            coupler.labels.tie(widest, widest[:1])
            tied = True
    return tied


def walk(graph: ir.Graph, shapes: Mapping[str, Shape]) -> Coupler:
    """Apply the rule of every node, in the order of the graph."""
    constants = {name: v.const_value for name, v in graph.initializers.items() if v.const_value is not None}
    coupler = Coupler(shapes, constants)
    for node in graph:
        if node.op_type == "ConstantOfShape" and node.domain in ("", "ai.onnx"):
            coupler.blank(node.outputs[0], range(len(coupler.shape(node.outputs[0]))))
        if any(attribute.type.name in ("GRAPH", "GRAPHS") for attribute in node.attributes.values()):
            what = "runs graphs of its own, which are left whole"
            _leave_whole(coupler, node, what)
            coupler.skipped.append((str(node.name), f"{node.op_type} '{node.name}' {what}"))
            continue
        if node.op_type in _READ_SHAPE:
            continue
        found = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if found is None:
            _leave_whole(coupler, node, "has no rule")
        elif not all(coupler.known(value) for value in node.inputs if value is not None):
            _leave_whole(coupler, node, "has an input of unknown shape")
        else:
            found(coupler, node)
    for output in graph.outputs:
        coupler.seal(output, "an output of the model keeps its meaning")
    pin_read_lengths(graph, coupler)
    return coupler


def _leave_whole(coupler: Coupler, node: ir.Node, what: str) -> None:
    """Pin all that a node reads, in the graphs inside it too."""
    why = f"{node.op_type} '{node.name}' {what}"
    for value in [*node.inputs, *_captured(node)]:
        if value is not None and coupler.known(value):
            coupler.seal(value, why)


def _captured(node: ir.Node) -> set[ir.Value]:
    """Tensors of the outer graph that the graphs inside a node read."""
    import onnx_ir as ir

    inner = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    nodes = [n for graph in inner for n in ir.traversal.RecursiveGraphIterator(graph)]
    values = {value for n in nodes for value in n.inputs if value is not None}
    return values | {value for graph in inner for value in graph.outputs}
