"""A step as a task of Ray's, which runs it again where a node dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trtcompress_graph.errors import HostLostError, RemoteError, StageError

from .plan import Step
from .ray_cluster import GOES_ON, Node, Watch
from .ray_node import Work, Worked, stages_by_name, work
from .ray_placement import Place

RETRIES = 3
"""How often Ray runs a step again whose node or process died."""
_LOOK = 5.0
"""Seconds after which it is asked whether a step that waits still has a node to run on."""


def run_task(step: Step, task: Work, place: Place, watch: Watch) -> Worked:
    """Have a step run by Ray, which runs it again where a node dies.

    Raises:
        HostLostError: no node is left for it.
        StageError: it raised something unforeseen.
        RemoteError: its process ended several times.
    """
    import ray

    alone = stages_by_name()[step.stage.name].alone  # which the plan of a cluster does not say any more
    while True:
        there = watch.there()
        nodes = [node for node in place.nodes if node.id in there]
        if not nodes:
            raise _lost(step)
        cpus = _usual_cpus(nodes) if alone else 1
        ids = {node.id for node in nodes if not alone or node.cpus == cpus}
        options = {"num_cpus": cpus, "max_retries": RETRIES, "label_selector": {"ray.io/node-id": _one_of(ids)}}
        if place.resource:
            options |= {"resources": {place.resource: 1}, "num_gpus": place.gpus}
        ref = ray.remote(work).options(**options).remote(task)
        worked = _wait(step, ref, ids, watch)
        if worked is not None:
            return worked
        ray.cancel(ref, force=True)


def _wait(step: Step, ref: Any, ids: set[str], watch: Watch) -> Worked | None:
    """What a task of Ray's comes to; None where the nodes that it could run on are gone.

    Raises:
        StageError: it raised something unforeseen.
        RemoteError: its process ended several times.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    while ids & watch.there():
        if not ray.wait([ref], timeout=_LOOK)[0]:
            continue
        try:
            worked: Worked = ray.get(ref)
            return worked
        except RayTaskError as error:
            raise _failed(step, error.cause) from error
        except RayError as error:
            if not ids & watch.there():
                return None
            raise _ended(step, error) from error
    return None


def _usual_cpus(nodes: Sequence[Node]) -> int:
    """The size that most of the nodes have: a step that takes so many CPUs has such a node to itself."""
    counts = Counter(node.cpus for node in nodes)
    return max(counts, key=lambda cpus: (counts[cpus], cpus))


def _one_of(ids: set[str]) -> str:
    return f"in({','.join(sorted(ids))})"


def _lost(step: Step) -> HostLostError:
    return HostLostError(
        "no node of the Ray cluster is left that serves it",
        where=f"stage {step.label}",
        hint=f"add a node with: ray start --address HOST:PORT; {GOES_ON}",
    )


def _failed(step: Step, error: BaseException) -> StageError:
    why = (str(error).strip() or "no message").splitlines()[0]
    hint = "set TRTCOMPRESS_TRACEBACK=1 to see where in the code"
    return StageError(f"{type(error).__name__} on a Ray node: {why}", where=f"stage {step.label}", hint=hint)


def _ended(step: Step, error: Exception) -> RemoteError:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return RemoteError(
        f"{type(error).__name__}: {why}",
        where=f"stage {step.label}",
        hint=f"its process ended several times, often for want of memory there; {GOES_ON}",
    )
