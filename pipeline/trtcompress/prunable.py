"""What can be cut from a model, what a unit of it costs, and what cannot be cut: `trtcompress inspect --groups`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from trtcompress_graph.axes import Axes
from trtcompress_graph.model import Model

from .outputs import LeftWhole, Prunable, PrunableGroup
from .profiles import usual_shapes
from .simplified import simplified

if TYPE_CHECKING:
    import onnx_ir as ir

    from .pruning.coupling import Coupling


def prunable(model: Model, axes: Axes) -> Prunable:
    """Groups of the simplified model, costs at the usual lengths of the axes.

    Raises:
        ModelError: the model does not run at these lengths.
    """
    from trtcompress_graph.load import load_ir
    from trtcompress_graph.shapes import graph_shapes

    from .pruning.coupling import analyse

    with simplified(model) as plain:
        loaded = load_ir(plain)
        shapes = graph_shapes(loaded, plain, usual_shapes(plain, axes))
        coupling = analyse(loaded.graph, shapes)
        whole: dict[str, list[str]] = {}
        for left in coupling.left:
            whole.setdefault(left.why, []).append(f"{left.weight}[{left.axis}]")
        return Prunable(
            groups=tuple(_groups(loaded.graph, coupling, shapes)),
            left=tuple(LeftWhole(why=why, weights=tuple(weights)) for why, weights in whole.items()),
        )


def _groups(graph: ir.Graph, coupling: Coupling, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[PrunableGroup]:
    """Each group, with what its smallest cut takes away, by unit."""
    from .pruning.budget import Costs

    costs = Costs(graph, coupling, shapes)
    for group in coupling.groups:
        units = [unit for cell in group.cells for unit in cell[: len(cell) // group.step]]
        less = costs.of(units)
        yield PrunableGroup(
            group=group.name,
            kind=group.kind,
            units=len(group.units),
            parts=group.step,
            macs=(costs.full.macs - less.macs) / len(units),
            parameters=(costs.full.parameters - less.parameters) / len(units),
            weights=tuple(f"{name}[{axis}]" for name, axis in group.weights),
        )
