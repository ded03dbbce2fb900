"""What a user wants left whole."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from glob import escape
from typing import TYPE_CHECKING

from trtcompress_graph.errors import UsageError

from .coupling import Coupling
from .groups import Group

if TYPE_CHECKING:
    import onnx_ir as ir


def without_kept(graph: ir.Graph, coupling: Coupling, patterns: Sequence[str]) -> tuple[Group, ...]:
    """The groups that no pattern names, by their own name, a weight, a tensor or a node that they cut.

    A group of channels is also named with `:channels` behind, which names no weight.

    Raises:
        UsageError: a pattern that matches nothing in the model.
    """
    near = _names(graph)
    own = {name for group in coupling.groups for name in (group.name, _full(group))}
    everything = own.union(near, *near.values())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in everything):
            raise UsageError(
                "the pattern matches no group, weight, tensor or node",
                where=f"keep '{pattern}'",
                hint="`trtcompress inspect M.onnx --groups` lists the names",
            )

    def kept(group: Group) -> bool:
        names = {
            group.name,
            _full(group),
            *(name for weight, _ in group.weights for name in (weight, *near.get(weight, ()))),
        }
        return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

    return tuple(group for group in coupling.groups if not kept(group))


def pattern_of(group: Group) -> str:
    """The pattern that names a group, and no other one that cuts the weight of its name too."""
    return escape(_full(group))


def _full(group: Group) -> str:
    return f"{group.name}:channels" if group.kind == "channels" else group.name


def _names(graph: ir.Graph) -> dict[str, set[str]]:
    """By tensor, the nodes that read or make it, and what these nodes make."""
    near: dict[str, set[str]] = {}
    for node in graph:
        made = {str(value.name) for value in node.outputs}
        for value in (*node.inputs, *node.outputs):
            if value is not None:
                near.setdefault(str(value.name), set()).update({str(node.name), *made})
    return near
