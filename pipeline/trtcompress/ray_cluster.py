"""A Ray cluster: how it is reached, what its nodes have, and which of them serve a target."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtcompress_graph.errors import RemoteToolError, UnreachableError, UsageError
from trtcompress_graph.target import Target

from . import __version__
from .ray_node import CpuKind, Seen, look, this_cpu
from .remote_host import Gpu, is_named

OWN = "trtcompress:"
"""Before a target's name: the resource of a node that is for that target, as given to `ray start --resources`."""
KIND = "accelerator_type:"
"""Before a card's name: the resource that Ray itself gives to a node with that card."""

SECONDS = 60.0
"""In which a cluster, and each of its nodes, has to answer."""
_ADDRESS = re.compile(r"(?:ray://)?([A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")
_KNOCK = 10.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = b"\x04"


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster that steps can run on.

    Attributes:
        id: Ray's.
        host: its name, for people.
        cpus: steps that it takes at once.
        resources: what else it has of Ray's resources, by name.
        seen: what was found there; None before anyone looked.
    """

    id: str
    host: str
    cpus: int
    resources: Mapping[str, float] = field(default_factory=dict)
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Nodes that serve a target, and what of theirs a step takes: the accelerator's resource, where it needs one."""

    nodes: tuple[Node, ...]
    resource: str = ""

    @property
    def gpus(self) -> int:
        """GPUs for a step."""
        return int(bool(self.resource) and all(node.resources.get("GPU", 0) >= 1 for node in self.nodes))


@contextmanager
def connected(address: str | None) -> Iterator[str]:
    """A connection to a cluster, as long as it is needed; one that the caller has is used, and kept.

    Nothing else may print to stdout meanwhile.

    Args:
        address: `HOST:PORT` of the cluster that this machine belongs to, `ray://HOST:PORT` from any other machine;
            else what `RAY_ADDRESS` says, or the cluster that runs on this machine.

    Yields:
        An address of the cluster's head; see `head_answers`.

    Raises:
        UsageError: Ray is not installed, or this is no address.
        UnreachableError: the cluster does not answer.
    """
    try:
        import ray
    except ImportError:
        hint = "pip install 'trtcompress[ray]'"
        raise UsageError("Ray is not installed here", where="--executor ray", hint=hint) from None
    wanted = address or os.environ.get("RAY_ADDRESS") or "auto"
    if ray.is_initialized():
        yield _head(wanted)
        return
    if wanted != "auto":
        _knock(wanted)
    # Ray tells of nodes that die on stdout, where a command's data goes
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        try:
            ray.init(address=wanted, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR)
        except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
            raise _silent(wanted, (str(error).splitlines() or [type(error).__name__])[0]) from error
        try:
            yield _head(wanted)
        finally:
            ray.shutdown()


def _head(address: str) -> str:
    import ray

    return address if address.startswith("ray://") else str(ray.get_runtime_context().gcs_address)


def head_answers(address: str) -> bool:
    """Whether the head of the cluster lives. Ray itself tries for a minute where it does not, and ends the process."""
    try:
        _knock(address)
    except UnreachableError:
        return False
    return True


def _knock(address: str) -> None:
    """Refuse an address where no Ray listens: Ray itself would try for minutes.

    Both of its ports speak gRPC, so HTTP/2: either side begins with a frame of settings (RFC 9113, section 3.4).
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) < 65536:
        hint = "such as --address head-node:6379, or ray://head-node:10001 from outside the cluster"
        raise UsageError(f"'{address}' is not HOST:PORT", where="--address", hint=hint)
    try:
        with socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=_KNOCK) as connection:
            if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
                connection.sendall(_PREFACE)
                if connection.recv(4)[3:] != _SETTINGS:
                    raise _silent(address, "what listens there is not Ray")
    except OSError as error:
        raise _silent(address, error.strerror or str(error)) from None


def _silent(address: str, why: str) -> UnreachableError:
    where = "the Ray cluster on this machine" if address == "auto" else f"the Ray cluster {address}"
    return UnreachableError(
        f"it does not answer: {why}",
        where=where,
        hint="this has to work: ray status --address HOST:PORT; a cluster of one machine: ray start --head",
    )


def alive() -> dict[str, Node]:
    """Nodes that take work now, by their ids; a head that only manages takes none."""
    import ray

    found = {}
    for facts in ray.nodes():
        cpus = int(facts["Resources"].get("CPU", 0))
        if facts["Alive"] and cpus >= 1:
            found[facts["NodeID"]] = Node(facts["NodeID"], facts["NodeManagerHostname"], cpus, facts["Resources"])
    return found


def look_at(nodes: Sequence[Node], paths: Sequence[str], targets: Sequence[Target]) -> tuple[Node, ...]:
    """Look at each node before any work.

    Args:
        nodes: of the cluster.
        paths: that the builds read.
        targets: to build for.

    Returns:
        The nodes, with what was found there. One that went away meanwhile is left out.

    Raises:
        UnreachableError: there is none, or none answers.
        RemoteToolError: one lacks trtcompress, or has another version of it, or lacks a path.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(look)
    asked = {
        task.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False), max_retries=0
        ).remote(list(paths), list(targets)): node
        for node in nodes
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS) if asked else ([], [])
    found = [seen for ref in answered if (seen := _answer(ref, asked[ref])) is not None]
    if not found:
        raise UnreachableError(
            f"none of its {len(nodes)} nodes with a CPU answers" if nodes else "no node of it takes work",
            where="the Ray cluster",
            hint="ray status shows its nodes; one is added with: ray start --address HOST:PORT",
        )
    return tuple(sorted(found, key=lambda node: node.id))


def _answer(ref: Any, node: Node) -> Node | None:
    """A node with what it has; None where it went away.

    Raises:
        RemoteToolError: builds cannot run there.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    where = f"Ray node {node.host}"
    try:
        seen: Seen = ray.get(ref)
    except (RayTaskError, ImportError) as error:
        why = str(error).strip().splitlines()[-1]
        hint = f"install the same trtcompress ({__version__}) on every node: pip install 'trtcompress[ray]'"
        raise RemoteToolError(f"trtcompress does not run there: {why}", where=where, hint=hint) from None
    except RayError:
        return None
    if seen.version != __version__:
        hint = f"install {__version__} there, or {seen.version} here"
        raise RemoteToolError(f"it has trtcompress {seen.version}, and this is {__version__}", where=where, hint=hint)
    if seen.absent:
        raise RemoteToolError(
            f"it does not have {seen.absent[0]}",
            where=where,
            hint="the config's folder and its data have to lie at the same path on every node: in a folder that all "
            "of them mount",
        )
    return Node(node.id, node.host, node.cpus, node.resources, seen)


def place_for(target: Target, nodes: Sequence[Node], cpu: CpuKind | None = None) -> Place:
    """Where steps of a target run.

    A node that has the target's accelerator comes first. Without one, what needs none (`cpu`, cards whose engines are
    built ahead of time, Jetsons, whose kits are packed) runs anywhere.

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
    resource = next(iter(having.values()), "")
    fitting = [node for node in nodes if having.get(node.id, "") == resource]
    able = [node for node in fitting if node.seen is None or not node.seen.lacking.get(target.name)]
    if not able:
        lacking = fitting[0].seen.lacking[target.name] if fitting[0].seen else ""
        hint = "install it there, or leave the target out"
        raise RemoteToolError(f"Ray node {fitting[0].host} cannot build for it: {lacking}", where=where, hint=hint)
    if target.how == "cpu":
        able = alike(able, cpu or this_cpu(), where)
    return Place(tuple(able), resource)


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
    for name in sorted(node.resources):
        card = name.removeprefix(KIND)
        if name.startswith(KIND) and (
            card.lower() in (target.name, *target.aliases) or is_named(Gpu("", (0, 0), card), target)
        ):
            return name
    return ""


def _accelerators(nodes: Sequence[Node]) -> str:
    found = sorted({name for node in nodes for name in node.resources if name.startswith((OWN, KIND))})
    return f"the cluster has {', '.join(found)}" if found else f"none of its {len(nodes)} nodes names any"
