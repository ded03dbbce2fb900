"""A step as a task of Ray's, which runs it again where a node dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtcompress_graph.errors import HostLostError, RemoteError, StageError

from .plan import Step
from .ray_cluster import Node
from .ray_node import Work, Worked, begin_work, stages_by_name
from .ray_placement import Place
from .ray_watch import GOES_ON, Watch

PlaceOf = Callable[[Sequence[Node]], Place]
"""Where a step can run, of the nodes that are there; no node where there is no such place."""

RETRIES = 3
"""How often Ray runs a step again whose node or process died."""
_LOOK = 5.0
"""Seconds after which it is asked whether a step that waits still has a node to run on."""


def run_task(step: Step, task: Work, place_of: PlaceOf, watch: Watch, started: Callable[[], None]) -> Worked:
    """Have a step run by Ray, which runs it again where a node dies.

    Args:
        step: of the plan.
        task: the same, for a node.
        place_of: where the step can run, of the nodes that are there.
        watch: the nodes.
        started: called when a node begins with it.

    Raises:
        HostLostError: no node is left for it.
        StageError: it raised something unforeseen.
        RemoteError: its process ended several times.
    """
    import ray

    alone = stages_by_name()[step.stage.name].alone  # which the plan of a cluster does not say any more
    while True:
        offer = _offer(place_of(watch.there()), alone)
        if not offer.ids:
            raise _lost(step)
        running = ray.remote(begin_work).options(**offer.options, num_returns="streaming").remote(task)
        worked = _wait(step, running, offer.ids, watch, lambda nodes: _offer(place_of(nodes), alone).ids, started)
        if worked is not None:
            return worked
        ray.cancel(running, force=True)


@dataclass(frozen=True, slots=True)
class _Offer:
    """Nodes that a step can run on, and what Ray is told of it."""

    ids: frozenset[str]
    options: Mapping[str, Any]


def _offer(place: Place, alone: bool) -> _Offer:
    cpus = _usual_cpus(place.nodes) if alone and place.nodes else 1
    ids = frozenset(node.id for node in place.nodes if not alone or node.cpus == cpus)
    options: dict[str, Any] = {
        "num_cpus": cpus,
        "max_retries": RETRIES,
        "label_selector": {"ray.io/node-id": f"in({','.join(sorted(ids))})"},
    }
    if place.resource:
        options |= {"resources": {place.resource: 1}, "num_gpus": place.gpus}
    return _Offer(ids, options)


def _wait(
    step: Step,
    running: Any,
    ids: frozenset[str],
    watch: Watch,
    offered: Callable[[Sequence[Node]], frozenset[str]],
    started: Callable[[], None],
) -> Worked | None:
    """What a task of Ray's comes to; None where it is to be given to Ray anew.

    That is where the nodes that it could run on are gone, or where it has not begun and other nodes could take it. One
    that has begun stays where it is, whatever joins.

    Raises:
        StageError: it raised something unforeseen.
        RemoteError: its process ended several times.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    begun = False
    while ids & _ids(nodes := watch.there()):
        if not begun and not offered(nodes) <= ids:
            return None
        if not ray.wait([running], timeout=_LOOK)[0]:
            continue
        try:
            worked: Worked | None = ray.get(next(running))
        except RayTaskError as error:
            raise _failed(step, error.cause) from error
        except RayError as error:
            if not ids & _ids(watch.there()):
                return None
            raise _ended(step, error) from error
        if worked is not None:
            return worked
        if not begun:
            begun = True
            started()
    return None


def _ids(nodes: Sequence[Node]) -> set[str]:
    return {node.id for node in nodes}


def _usual_cpus(nodes: Sequence[Node]) -> int:
    """The size that most of the nodes have: a step that takes so many CPUs has such a node to itself."""
    counts = Counter(node.cpus for node in nodes)
    return max(counts, key=lambda cpus: (counts[cpus], cpus))


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
