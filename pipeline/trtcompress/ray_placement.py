"""Which nodes of a Ray cluster serve a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trtcompress_engines.gpu.present import has_less_memory, is_of_model
from trtcompress_graph.errors import RemoteToolError
from trtcompress_graph.target import Target

from .ray_cluster import Node
from .ray_node import CpuKind, this_cpu
from .remote_host import Gpu, is_named

OWN = "trtcompress:"
"""Before a target's name: the resource of a node that is for that target, as given to `ray start --resources`."""
KIND = "accelerator_type:"
"""Before a card's name: the resource that Ray itself gives to a node with that card."""


@dataclass(frozen=True, slots=True)
class Place:
    """Nodes that serve a target, and what of theirs a step takes: the accelerator's resource, where it needs one."""

    nodes: tuple[Node, ...]
    resource: str = ""

    @property
    def gpus(self) -> int:
        """GPUs for a step."""
        return int(bool(self.resource) and all(node.resources.get("GPU", 0) >= 1 for node in self.nodes))


def place_for(target: Target, nodes: Sequence[Node], cpu: CpuKind | None = None) -> Place:
    """Where steps of a target run.

    Of the nodes that can build for it, those that have the target's accelerator come first. Without one, what needs
    none (`cpu`, cards whose engines are built ahead of time, Jetsons, whose kits are packed) runs anywhere.

    Args:
        target: the device.
        nodes: that were looked at.
        cpu: what the target `cpu` was planned for; this machine's where None.

    Raises:
        RemoteToolError: no node can serve the target.
    """
    where = f"target '{target.name}'"
    having = {node.id: resource for node in nodes if (resource := _resource(node, target))}
    if not having and target.how == "local":
        raise RemoteToolError(
            f"no node of the Ray cluster has the accelerator; {_accelerators(nodes)}",
            where=where,
            hint=f"add one with: ray start --address HOST:PORT --resources '{{\"{OWN}{target.name}\": 1}}'; "
            "or leave the target out",
        )
    if not nodes:
        raise RemoteToolError("the Ray cluster has no node", where=where, hint="ray start --address HOST:PORT adds one")
    fitting = [node for node in nodes if node.id in having or target.how != "local"]
    able = [node for node in fitting if not node.lacks(target.name)]
    if not able:
        what = f"Ray node {fitting[0].host} cannot build for it: {fitting[0].lacks(target.name)}"
        raise RemoteToolError(what, where=where, hint="install it there, or leave the target out")
    if target.how == "cpu":
        able = alike(able, cpu or this_cpu(), where)
    there = [having[node.id] for node in able if node.id in having]
    resource = min(there, key=lambda name: not _is_its_own(name, target), default="")
    return Place(tuple(node for node in able if having.get(node.id, "") == resource), resource)


def place_for_all(targets: Sequence[Target], nodes: Sequence[Node]) -> Place:
    """Where steps run that are for all targets.

    Raises:
        RemoteToolError: INT8 is written for a CPU, and no node has one of that kind.
    """
    for_cpu = any(target.how == "cpu" for target in targets)
    return Place(tuple(alike(nodes, this_cpu(), "targets") if for_cpu else nodes))


def alike(nodes: Sequence[Node], cpu: CpuKind, where: str) -> list[Node]:
    """Nodes whose CPU takes the INT8 encoding that a build was planned for.

    Raises:
        RemoteToolError: there is none.
    """
    found = [node for node in nodes if node.seen is None or node.seen.cpu == cpu]
    if not found:
        raise RemoteToolError(
            f"INT8 for a CPU is written for this one (VNNI: {cpu.vnni}, AMX: {cpu.amx}), and no node of the Ray "
            "cluster has one of that kind",
            where=where,
            hint="start the build on a machine like the nodes",
        )
    return found


def _resource(node: Node, target: Target) -> str:
    """The resource by which a node has the accelerator of a target; empty where it does not have it."""
    own = OWN + target.name
    if node.resources.get(own, 0) >= 1:
        return own
    kinds = [name for name in sorted(node.resources) if name.startswith(KIND) and _stands_for(_card(name), target)]
    return min(kinds, key=lambda name: not _is_its_own(name, target), default="")


def _stands_for(card: Gpu, target: Target) -> bool:
    named = card.title.lower() in (target.name, *target.aliases)
    return named or (is_of_model(card.title, target) and not has_less_memory(card.title, target))


def _is_its_own(resource: str, target: Target) -> bool:
    """Whether it is that of the target's very card, and not of one with more memory."""
    card = _card(resource)
    named = resource.startswith(OWN) or card.title.lower() in (target.name, *target.aliases)
    return named or is_named(card, target)


def _card(resource: str) -> Gpu:
    return Gpu("", (0, 0), resource.removeprefix(KIND))


def _accelerators(nodes: Sequence[Node]) -> str:
    found = sorted({name for node in nodes for name in node.resources if name.startswith((OWN, KIND))})
    return f"the cluster has {', '.join(found)}" if found else f"none of its {len(nodes)} nodes names any"
