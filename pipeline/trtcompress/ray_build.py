"""Builds on a Ray cluster: each step is a task of Ray's, on a node that serves its target.

A step's value lies in the shared store before its task ends. So a node that dies loses the step that it was at, no
more: Ray runs that again on another node.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from trtcompress_graph.errors import HostLostError, RemoteError, StageError, TrtCompressError, UsageError

from .api import BuildOptions, Built, build_all
from .config import Loaded
from .fingerprint import fingerprint
from .plan import Plan, Ref, Step
from .ray_cluster import Node, Place, alike, alive, connected, head_answers, look_at, place_for
from .ray_node import Work, Worked, bring, stages_by_name, this_cpu, work
from .remote_join import targets_of
from .runner import Listener, Ran, Run, fetched, read_value, run_plan, stored
from .store import Store
from .store_location import locate_store

RETRIES = 3
"""How often Ray runs a step again whose node or process died."""
_LOOK = 5.0
"""Seconds after which it is asked whether a step that waits still has a node to run on."""

_GOES_ON = "the same command goes on from there"
_TOLD = logging.getLogger("trtcompress.stages")


@dataclass(slots=True)
class Cluster:
    """Runs plans on the nodes of a cluster.

    Attributes:
        head: address of the machine that manages the cluster.
        url: of the store that all nodes share.
        nodes: that were looked at.
        any_place: where steps run that are for no target.
        places: where steps of a target run.
    """

    head: str
    url: str
    nodes: tuple[Node, ...]
    any_place: Place
    places: Mapping[str, Place]
    _same: dict[str, threading.Lock] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)

    @property
    def cpus(self) -> int:
        """Steps that run at once."""
        return sum(node.cpus for node in self.nodes)

    def run_plan(self, plan: Plan, store: Store, listener: Listener, *, jobs: int = 1) -> Run:
        """Run all steps on the cluster; every value is brought here.

        Raises:
            HostLostError: no node is left that serves a target.
            TrtCompressError: of the first step that failed.
        """
        made: dict[Ref, tuple[str, str]] = {}

        def run_one(step: Step, inputs: Mapping[str, Any], store: Store, listener: Listener) -> tuple[Any, Ran]:
            refs = [ref for several in step.needs.values() for ref in several]
            task = Work(
                self.url,
                step.stage.name,
                step.subject,
                step.needs,
                step.output,
                step.settings,
                {ref: plan.given[ref] for ref in refs if ref in plan.given},
                {ref: made[ref] for ref in refs if ref in made},
            )
            key = fingerprint(step, inputs)
            with self._same.setdefault(key, threading.Lock()):  # two builds of one cluster that share a step do it once
                value, ran = self._run_step(step, key, task, inputs, store, listener)
            made[step.output] = (step.stage.name, ran.key)
            listener.finished(step, ran.seconds, ran.reused)
            return value, ran

        # A step that must be alone has a node to itself, and so does not stop the others
        steps = tuple(replace(step, stage=replace(step.stage, alone=False)) for step in plan.steps)
        return run_plan(replace(plan, steps=steps), store, listener, jobs=jobs, run_one=run_one)

    def _run_step(
        self, step: Step, key: str, task: Work, inputs: Mapping[str, Any], store: Store, listener: Listener
    ) -> tuple[Any, Ran]:
        started = time.perf_counter()
        if not step.stage.device(inputs):  # of a step that a machine shapes, the node knows the fingerprint
            with store.lock(key):
                found = stored(step, key, store) or fetched(step, key, store)
            if found is not None:
                store.share(key)
                return found[0], Ran(step, key, time.perf_counter() - started, True)
        listener.started(step)
        worked = self._on_a_node(step, task)
        for level, line in worked.told:
            _TOLD.log(level, line)
        if worked.error is not None:
            raise _as_here(worked.error, worked.root, store)
        value = read_value(step.stage, bring(store, worked.key))
        return value, Ran(step, worked.key, time.perf_counter() - started, worked.reused)

    def _on_a_node(self, step: Step, task: Work) -> Worked:
        """Have a step run by Ray, which runs it again where a node dies.

        Raises:
            HostLostError: no node is left for it.
            RemoteError: it ended several processes.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        place = self._place(step)
        alone = stages_by_name()[step.stage.name].alone
        while True:
            there = self._there()
            nodes = [node for node in place.nodes if node.id in there]
            if not nodes:
                raise _lost(step)
            cpus = _usual_cpus(nodes) if alone else 1
            ids = {node.id for node in nodes if not alone or node.cpus == cpus}
            options = {"num_cpus": cpus, "max_retries": RETRIES, "label_selector": {"ray.io/node-id": _one_of(ids)}}
            if place.resource and step.stage.scope in ("engine", "target"):
                options |= {"resources": {place.resource: 1}, "num_gpus": place.gpus}
            ref = ray.remote(work).options(**options).remote(task)
            while ids & self._there():
                if not ray.wait([ref], timeout=_LOOK)[0]:
                    continue
                try:
                    worked: Worked = ray.get(ref)
                    return worked
                except RayTaskError as error:
                    raise _failed(step, error.cause) from error
                except RayError as error:
                    if ids & self._there():
                        raise _ended(step, error) from error
                    break
            ray.cancel(ref, force=True)

    def _there(self) -> set[str]:
        """Nodes that live; of each that does not any more it is told once.

        Raises:
            HostLostError: the head is gone, and with it the cluster.
        """
        if not head_answers(self.head):
            raise HostLostError("the head of the Ray cluster is gone", where=self.head, hint=_GOES_ON)
        there = set(alive())
        for node in self.nodes:
            if node.id not in there and node.id not in self._gone:
                self._gone.add(node.id)
                _TOLD.warning("warning: Ray node %s is gone; what it was at is done again elsewhere", node.host)
        return there

    def _place(self, step: Step) -> Place:
        if step.stage.scope not in ("engine", "target"):
            return self.any_place
        return self.places[step.subject.partition("/")[0]]


@contextmanager
def cluster_for(builds: Sequence[Loaded], options: BuildOptions, address: str | None) -> Iterator[Cluster]:
    """A cluster that was looked at: its nodes can run these builds, or they are refused here.

    Raises:
        UsageError: Ray is not installed, or the store is not one that nodes share.
        UnreachableError: the cluster does not answer.
        RemoteToolError: a node lacks what the builds need, or no node serves a target.
    """
    url = locate_store(options.store).url
    if not options.cache or not url:
        raise UsageError(
            "the nodes of a cluster need a store that they share",
            where="--executor ray",
            hint="add --store s3://bucket/prefix, or --store file:///mnt/store for a folder that all of them mount"
            + ("" if options.cache else ", and leave --no-cache out"),
        )
    with connected(address) as head:
        targets = {target.name: target for loaded in builds for target in targets_of(loaded.config)}
        paths = dict.fromkeys(path for loaded in builds for path in _paths(loaded))
        nodes = look_at(list(alive().values()), list(paths), list(targets.values()))
        places = {name: place_for(target, nodes) for name, target in targets.items()}
        for_cpu = any(target.how == "cpu" for target in targets.values())
        shared = tuple(alike(nodes, this_cpu(), "targets")) if for_cpu else nodes
        yield Cluster(head, url, nodes, Place(shared), places)


def build_each(
    builds: Sequence[Loaded], options: BuildOptions, cluster: Cluster, listener: Listener
) -> list[Built | TrtCompressError]:
    """Build several configs at once, on one cluster.

    Returns:
        In their order, what each came to; one that fails does not stop the others.
    """
    shown = [listener] if len(builds) == 1 else _named(listener, builds)
    options = replace(options, run_plan=cluster.run_plan, jobs=options.jobs or cluster.cpus)

    def one(loaded: Loaded, listener: Listener) -> Built | TrtCompressError:
        try:
            return build_all(loaded, options, listener)
        except TrtCompressError as error:
            return error

    if len(builds) == 1:
        return [one(builds[0], listener)]
    pool = ThreadPoolExecutor(max_workers=len(builds), thread_name_prefix="stage-build")
    try:
        return list(pool.map(one, builds, shown))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _paths(loaded: Loaded) -> list[str]:
    """What a build reads: the config's folder, and the files and folders that it names."""
    config, data = loaded.config, loaded.config.data
    sources = [config.model, data.calibration, data.evaluation, data.training]
    named = [loaded.base / one.source for one in sources if one is not None]
    return [str(path.absolute()) for path in (loaded.base, *named) if path.exists()]


def _usual_cpus(nodes: Sequence[Node]) -> int:
    """The size that most of the nodes have: a step that takes so many CPUs has such a node to itself."""
    counts = Counter(node.cpus for node in nodes)
    return max(counts, key=lambda cpus: (counts[cpus], cpus))


def _one_of(ids: set[str]) -> str:
    return f"in({','.join(sorted(ids))})"


def _as_here(error: TrtCompressError, root: str, store: Store) -> TrtCompressError:
    """An error of a node, as if its store were the one here; the runner tells the names that users know."""
    if root:
        error.where, error.what, error.hint = (
            text.replace(root, str(store.root)) for text in (error.where, error.what, error.hint)
        )
    return error


def _lost(step: Step) -> HostLostError:
    return HostLostError(
        "no node of the Ray cluster is left that serves it",
        where=f"stage {step.label}",
        hint=f"add a node with: ray start --address HOST:PORT; {_GOES_ON}",
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
        hint=f"its process ended several times, often for want of memory there; {_GOES_ON}",
    )


class _Named:
    """A listener of one of several builds: the steps carry the build's name, and all builds count as one."""

    def __init__(self, listener: Listener, name: str, planned: list[Step]) -> None:
        self._listener, self._name, self._planned = listener, name, planned

    def planned(self, plan: Plan) -> None:
        """Tell of the steps of all builds so far."""
        self._planned += plan.steps
        self._listener.planned(replace(plan, steps=tuple(self._planned)))

    def started(self, step: Step) -> None:
        """Hand it on."""
        self._listener.started(self._with_name(step))

    def progressed(self, step: Step, done: int, total: int | None) -> None:
        """Hand it on."""
        self._listener.progressed(self._with_name(step), done, total)

    def finished(self, step: Step, seconds: float, reused: bool) -> None:
        """Hand it on."""
        self._listener.finished(self._with_name(step), seconds, reused)

    def _with_name(self, step: Step) -> Step:
        return replace(step, subject=f"{step.subject} ({self._name})".strip())


def _named(listener: Listener, builds: Sequence[Loaded]) -> list[Listener]:
    planned: list[Step] = []
    return [_Named(listener, loaded.config.name, planned) for loaded in builds]
