"""What a user wants left whole."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from trtcompress_graph.errors import UsageError

from .coupling import Coupling
from .groups import Group

if TYPE_CHECKING:
    import onnx_ir as ir


def without_kept(graph: ir.Graph, coupling: Coupling, patterns: Sequence[str]) -> tuple[Group, ...]:
    """The groups that no pattern names, by their own name, a weight, a tensor or a node that they cut.

    Raises:
        UsageError: a pattern that matches nothing in the model.
    """
    near = _names(graph)
    everything = {group.name for group in coupling.groups}.union(near, *near.values())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in everything):
            raise UsageError(
                "the pattern matches no group, weight, tensor or node",
                where=f"keep '{pattern}'",
                hint="`trtcompress inspect M.onnx --groups` lists the names",
            )

    def kept(group: Group) -> bool:
        names = {group.name, *(name for weight, _ in group.weights for name in (weight, *near.get(weight, ())))}
        return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

    return tuple(group for group in coupling.groups if not kept(group))


def _names(graph: ir.Graph) -> dict[str, set[str]]:
    """By tensor, the nodes that read or make it, and what these nodes make."""
    near: dict[str, set[str]] = {}
    for node in graph:
        made = {str(value.name) for value in node.outputs}
        for value in (*node.inputs, *node.outputs):
            if value is not None:
                near.setdefault(str(value.name), set()).update({str(node.name), *made})
    return near
