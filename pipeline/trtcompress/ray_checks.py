"""Looks at the nodes of a Ray cluster before any work: whether builds can run there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trtcompress_graph.errors import RemoteToolError, UnreachableError
from trtcompress_graph.target import Target

from . import __version__
from .ray_cluster import Node
from .ray_node import Seen, look

_TOLD = logging.getLogger("trtcompress.stages")

SECONDS = 60.0
"""In which every node has to answer; one that does not joins when it does."""

PATIENCE = 300.0
"""Seconds more for the first answer: a busy node starts a process for it, which loads the whole program."""


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
    try:
        asked = {
            task.options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False), max_retries=0
            ).remote(list(paths), list(targets)): node
            for node in nodes
        }
    except Exception as error:  # Ray raises many kinds, and over ray:// what was raised on the head
        why = (str(error).strip() or "no message").splitlines()[0]
        raise RemoteToolError(
            f"it takes no work of trtcompress: {type(error).__name__}: {why}",
            where="the Ray cluster",
            hint=f"install the same trtcompress ({__version__}) on every node, and over ray:// on the head too: "
            "pip install 'trtcompress[ray]'",
        ) from error
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS) if asked else ([], [])
    if silent and not answered:
        _TOLD.warning("warning: no node of the Ray cluster has answered in %.0f s; still waiting for one", SECONDS)
        answered, _ = ray.wait(silent, num_returns=1, timeout=PATIENCE)
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
    return replace(node, seen=seen)
