"""Trying a group: does its smallest cut hold together?"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from trtcompress_graph.errors import PruneError

from .consistency import check_nodes
from .coupler import Coupler
from .cut import Alive, Cut
from .groups import Factors, Group
from .parameters import CutGraph
from .relations import Relations

if TYPE_CHECKING:
    import onnx_ir as ir


class Trial:
    """Tries groups of one graph.

    Args:
        graph: the graph.
        coupler: that walked through it.
        factors: settled labels.
    """

    def __init__(self, graph: ir.Graph, coupler: Coupler, factors: Factors) -> None:
        self._coupler = coupler
        self._factors = factors
        self._nodes = list(graph)
        self._near: dict[int, set[int]] = defaultdict(set)
        near: dict[str, set[int]] = defaultdict(set)
        for index, node in enumerate(self._nodes):
            for value in (*node.inputs, *node.outputs):
                if value is not None and value.name in factors:
                    near[str(value.name)].add(index)
        for name, indices in near.items():
            for factor in factors[name]:
                for label in set(factor.labels.reshape(-1).tolist()):
                    self._near[label] |= indices

    def fails(self, relations: Relations, group: Group) -> str | None:
        """Why a cut of one part of the group does not hold; None if it does.

        Each cell loses others of its units, so that a graph that needs the same ones everywhere is found out.
        """
        units = []
        for place, cell in enumerate(group.cells):
            count = len(cell) // group.step
            units += [cell[(place * 7 + i) % len(cell)] for i in range(count)]
        cut = Cut.of(relations, units)
        nodes = sorted(set().union(*(self._near[label] for label in cut.dead)))
        plan = CutGraph(self._coupler.shapes, self._coupler.constants, Alive(self._factors, cut))
        try:
            check_nodes(plan, self._factors, [self._nodes[index] for index in nodes])
        except PruneError as error:
            return f"{error.where}: {error.what}"
        return None
