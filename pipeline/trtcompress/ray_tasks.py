"""A step as a task of Ray's, which runs it again where a node dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trtcompress_graph.errors import HostLostError, RemoteError, StageError

from .plan import Step
from .ray_cluster import Node
from .ray_node import Work, Worked, stages_by_name
from .ray_placement import Place
from .ray_running import Running, start
from .ray_watch import GOES_ON, Watch

PlaceOf = Callable[[Sequence[Node]], Place]
"""Where a step can run, of the nodes that are there; no node where there is no such place."""

RETRIES = 3
"""How often Ray runs a step again whose node or process died."""


def run_task(
    step: Step, task: Work, place_of: PlaceOf, watch: Watch, started: Callable[[], None], begun: Any = None
) -> Worked:
    """Have a step run by Ray, which runs it again where a node dies.

    Args:
        step: of the plan.
        task: the same, for a node.
        place_of: where the step can run, of the nodes that are there.
        watch: the nodes.
        started: called when a node begins with it.
        begun: see `ray_cluster.notes_of_beginnings`.

    Raises:
        HostLostError: no node is left for it.
        StageError: it, or Ray where it was given to it, raised something unforeseen.
        RemoteError: its process ended several times.
    """
    alone = stages_by_name()[step.stage.name].alone  # which the plan of a cluster does not say any more
    while True:
        offer = _offer(place_of(watch.there()), alone)
        if not offer.ids:
            raise _lost(step)
        try:
            running = start(task, offer.options, begun)
        except Exception as error:  # Ray raises many kinds, and over ray:// what was raised on the head
            watch.there()  # which tells that the head is gone, where it is
            raise _failed(step, error, "by Ray, which did not take it") from error
        worked = _wait(step, running, offer.ids, watch, lambda nodes: _offer(place_of(nodes), alone).ids, started)
        if worked is not None:
            return worked
        with suppress(Exception):  # one that goes on does no harm: what it makes is the same
            running.stop()


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
    running: Running,
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
        RemoteError: its process ended several times, or the connection did.
    """
    from ray.exceptions import RayError, RayTaskError

    begun = False
    while ids & _ids(nodes := watch.there()):
        if not begun and not offered(nodes) <= ids:
            return None
        try:
            news = running.news()
        except RayTaskError as error:
            raise _failed(step, error.cause, "on a Ray node") from error
        except RayError as error:
            if not ids & _ids(watch.there()):
                return None
            raise _ended(step, error) from error
        except Exception as error:  # over ray:// a connection that ends raises what is no error of Ray's
            watch.there()
            raise _cut_off(step, error) from error
        if isinstance(news, Worked):
            return news
        if news and not begun:
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


def _failed(step: Step, error: BaseException, where: str) -> StageError:
    why = (str(error).strip() or "no message").splitlines()[0]
    hint = "set TRTCOMPRESS_TRACEBACK=1 to see where in the code"
    return StageError(f"{type(error).__name__} {where}: {why}", where=f"stage {step.label}", hint=hint)


def _cut_off(step: Step, error: Exception) -> RemoteError:
    why = (str(error).strip() or "no message").splitlines()[0]
    where = f"stage {step.label}"
    return RemoteError(f"Ray tells of it no more: {type(error).__name__}: {why}", where=where, hint=GOES_ON)


def _ended(step: Step, error: Exception) -> RemoteError:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return RemoteError(
        f"{type(error).__name__}: {why}",
        where=f"stage {step.label}",
        hint=f"its process ended several times, often for want of memory there; {GOES_ON}",
    )
