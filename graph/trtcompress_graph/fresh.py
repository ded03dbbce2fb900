"""Names that a graph does not have yet."""

from __future__ import annotations

import onnx_ir as ir


class FreshNames:
    """Hands out names of tensors and of nodes, each once, none that the graph or a graph inside it holds."""

    def __init__(self, graph: ir.Graph) -> None:
        self._tensors: set[str | None] = {value.name for node in graph.all_nodes() for value in node.outputs}
        for held in (graph, *graph.subgraphs()):
            self._tensors.update(value.name for value in held.inputs)
            self._tensors.update(held.initializers)
        self._nodes: set[str | None] = {node.name for node in graph.all_nodes()}

    def tensor(self, wanted: str) -> str:
        """`wanted`, or with a number behind it."""
        return _take(wanted, self._tensors)

    def node(self, wanted: str) -> str:
        """`wanted`, or with a number behind it."""
        return _take(wanted, self._nodes)


def _take(wanted: str, taken: set[str | None]) -> str:
    name, count = wanted, 1
    while name in taken:
        name, count = f"{wanted}_{count}", count + 1
    taken.add(name)
    return name
