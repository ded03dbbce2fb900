"""Runs the steps of a plan on a Ray cluster: each on a node that serves its target.

A step's value lies in the shared store before its task ends. So a node that dies loses the step that it was at, no
more: that is done again on another node.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from trtcompress_graph.errors import RemoteToolError, TrtCompressError
from trtcompress_graph.target import Target

from .fingerprint import fingerprint
from .plan import Plan, Ref, Step
from .ray_cluster import Node
from .ray_node import Work, Worked, bring, fetch, send_again
from .ray_placement import Place, place_for, place_for_all
from .ray_tasks import run_task
from .ray_watch import Watch
from .runner import Listener, Ran, Run, fetched, read_value, run_plan, stored
from .store import Store

_TOLD = logging.getLogger("trtcompress.stages")


@dataclass(slots=True)
class Cluster:
    """Runs plans on the nodes of a cluster.

    Attributes:
        url: of the store that all nodes share.
        watch: the nodes.
        targets: of all builds, by name.
        begun: see `ray_cluster.notes_of_beginnings`.
    """

    url: str
    watch: Watch
    targets: Mapping[str, Target]
    begun: Any = None
    _same: dict[str, threading.Lock] = field(default_factory=dict)

    def run_plan(self, plan: Plan, store: Store, listener: Listener, *, jobs: int = 1) -> Run:
        """Run all steps on the cluster; every value is brought here.

        Raises:
            HostLostError: no node is left that serves a target.
            TrtCompressError: of the first step that failed.
        """
        made: dict[Ref, tuple[str, str]] = {}

        def run_one(step: Step, inputs: Mapping[str, Any], store: Store, listener: Listener) -> tuple[Any, Ran]:
            task = _work_of(step, self.url, plan.given, made)
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
        worked = self._work(step, task, store, listener)
        value = read_value(step.stage, bring(store, worked.key))
        return value, Ran(step, worked.key, time.perf_counter() - started, worked.reused)

    def _work(self, step: Step, task: Work, store: Store, listener: Listener) -> Worked:
        """Have a node do a step; what the shared store lost is sent again, each entry once, and the step tried anew.

        Inputs are sent from here, where all that was made lies; the value from the node, which may have had it before.
        """
        sent: set[str] = set()
        while True:
            worked = run_task(
                step, task, partial(self._place, step), self.watch, partial(listener.started, step), self.begun
            )
            for level, line in worked.told:
                _TOLD.log(level, line)
            lost = set(worked.lost)
            if worked.error is not None:
                if not lost or lost & sent or not all(send_again(store, key) for key in lost):
                    raise _as_here(worked.error, worked.root, store)
            elif worked.key in sent or fetch(store, worked.key):
                return worked
            else:
                lost, task = {worked.key}, replace(task, again=True)
            sent |= lost
            _TOLD.warning("warning: %s had lost what stage %s needs or made; it is sent again", self.url, step.label)

    def _place(self, step: Step, nodes: Sequence[Node]) -> Place:
        of_a_target = step.stage.scope in ("engine", "target")
        try:
            if of_a_target:
                return place_for(self.targets[step.subject.partition("/")[0]], nodes)
            return place_for_all(list(self.targets.values()), nodes)
        except RemoteToolError:  # the build began with such nodes, and they are gone
            return Place(())


def _work_of(step: Step, url: str, given: Mapping[Ref, Any], made: Mapping[Ref, tuple[str, str]]) -> Work:
    """A step and what it needs, of all that was given and made so far."""
    refs = [ref for several in step.needs.values() for ref in several]
    return Work(
        url,
        step.stage.name,
        step.subject,
        step.needs,
        step.output,
        step.settings,
        {ref: given[ref] for ref in refs if ref in given},
        {ref: made[ref] for ref in refs if ref in made},
    )


def _as_here(error: TrtCompressError, root: str, store: Store) -> TrtCompressError:
    """An error of a node, as if its store were the one here; the runner tells the names that users know."""
    if root:
        error.where, error.what, error.hint = (
            text.replace(root, str(store.root)) for text in (error.where, error.what, error.hint)
        )
    return error
