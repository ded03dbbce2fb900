"""What a cut costs, found from shapes alone: the graph is not touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from trtcompress_graph.cost import graph_cost

from .coupling import Coupling
from .cut import Alive, Cut
from .factors import Shape
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
        self._graph = graph
        self._coupling = coupling
        used = {str(value.name) for node in graph for value in (*node.inputs, *node.outputs) if value is not None}
        self._shapes = {name: shape for name, shape in shapes.items() if name in used}
        self.full = self._cost(self._shapes)

    def of(self, units: Iterable[int]) -> Cost:
        """The cost of the graph without these units.

        Raises:
            PruneError: what lives is not a box.
        """
        alive = Alive(self._coupling.factors, Cut.of(self._coupling.relations, units))
        touched = {
            name: alive.shape(name, self._shapes[name])
            for name in self._coupling.factors
            if name in self._shapes and alive.touched(name)
        }
        return self._cost(self._shapes | touched)

    def _cost(self, shapes: Mapping[str, Shape]) -> Cost:
        cost = graph_cost(self._graph, shapes)
        return Cost(macs=cost.macs, parameters=cost.parameters)
