"""What becomes of a step on a Ray cluster when nodes join. No cluster runs here: Ray is a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trtcompress import __version__, ray_running
from trtcompress.plan import Step
from trtcompress.ray_cluster import Node
from trtcompress.ray_node import CpuKind, Seen, Work, Worked, stages_by_name
from trtcompress.ray_placement import Place, place_for
from trtcompress.ray_running import start
from trtcompress.ray_tasks import run_task
from trtcompress.ray_watch import Watch
from trtcompress.stage import StageSettings
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import HostLostError, RemoteError, StageError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'trtcompress[ray]'")

BEGINS, NODE_JOINS, ENDS, DIES, NODE_DIES = "begins", "a node joins", "ends", "its process dies", "its node dies"
DONE = Worked("key", False, None, (), "")
SEEN = Seen(__version__, CpuKind(vnni=True, amx=False), {}, ())
FIRST = Node("a", "host-a", 4, {}, SEEN)
LATER = Node("b", "host-b", 8, {"trtcompress:rtx-4090": 1.0}, SEEN)


@dataclass
class Script:
    """Ray and the watch, as far as a step needs them: what happens comes from a list."""

    events: list[str]
    nodes: list[Node] = field(default_factory=lambda: [FIRST])
    asked: list[str] = field(default_factory=list)
    cancelled: int = 0

    def there(self) -> list[Node]:
        return list(self.nodes)

    def options(self, **options: Any) -> Script:
        self.asked.append(options["label_selector"]["ray.io/node-id"])
        return self

    def remote(self, task: object) -> Iterator[str]:
        return iter(lambda: self.events.pop(0), "")

    def wait(self, running: list[object], timeout: float) -> tuple[list[object], list[object]]:
        if self.events[0] == NODE_JOINS:
            self.nodes.append(LATER)
        elif self.events[0] == NODE_DIES:
            self.nodes.remove(FIRST)
        else:
            return running, []
        self.events.pop(0)
        return [], running

    def get(self, event: str) -> Worked | None:
        if event == DIES:
            self.nodes.append(LATER)  # just then
            raise ray.exceptions.WorkerCrashedError
        return DONE if event == ENDS else None

    def cancel(self, running: object, force: bool) -> None:
        self.cancelled += 1


PlaceOf = Callable[[Sequence[Node]], Place]
CASES = {
    "validate": lambda nodes: Place(tuple(nodes)),
    "compile": lambda nodes: place_for(resolve_target("rtx-4090"), nodes),
}


@pytest.fixture(params=CASES)
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], Worked]:
    """Runs a step that takes a node of the usual size to itself, or one that goes first to nodes with its card."""
    place_of: PlaceOf = CASES[request.param]
    step = Step(stages_by_name()[request.param], "rtx-4090", {}, ("value", "rtx-4090"), StageSettings())

    def run_it(script: Script) -> Worked:
        monkeypatch.setattr(ray, "remote", lambda work: script)
        for name in ("wait", "get", "cancel"):
            monkeypatch.setattr(ray, name, getattr(script, name))
        return run_task(step, cast(Work, None), place_of, cast(Watch, script), lambda: None)

    return run_it


def test_a_step_that_runs_stays_where_it_is_when_a_better_node_joins(run: Callable[[Script], Worked]) -> None:
    script = Script([BEGINS, NODE_JOINS, ENDS])
    assert run(script) is DONE
    assert (script.asked, script.cancelled) == (["in(a)"], 0)


def test_a_step_that_waits_goes_to_the_better_node(run: Callable[[Script], Worked]) -> None:
    script = Script([NODE_JOINS, BEGINS, ENDS])
    assert run(script) is DONE
    assert (script.asked, script.cancelled) == (["in(a)", "in(b)"], 1)


def test_a_step_whose_node_dies_goes_to_another(run: Callable[[Script], Worked]) -> None:
    script = Script([BEGINS, NODE_JOINS, NODE_DIES, BEGINS, ENDS])
    assert run(script) is DONE
    assert (script.asked, script.cancelled) == (["in(a)", "in(b)"], 1)


def test_a_step_whose_process_ends_on_a_node_that_lives_is_told_of(run: Callable[[Script], Worked]) -> None:
    script = Script([BEGINS, DIES, BEGINS, ENDS])
    with pytest.raises(RemoteError, match="WorkerCrashedError"):
        run(script)
    assert script.asked == ["in(a)"]


def test_what_ray_raises_where_a_step_is_given_to_it_is_told_in_plain_words(
    run: Callable[[Script], Worked], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script([])

    def refuse(task: object) -> None:
        raise TypeError("cannot pickle this\nat all")

    monkeypatch.setattr(script, "remote", refuse)
    with pytest.raises(StageError) as told:
        run(script)
    assert told.value.what == "TypeError by Ray, which did not take it: cannot pickle this"
    assert told.value.where.startswith("stage ")

    def gone() -> list[Node]:
        if script.asked:
            raise HostLostError("the head of the Ray cluster is gone", where="head:1")
        return [FIRST]

    script.asked.clear()
    monkeypatch.setattr(script, "there", gone)
    with pytest.raises(HostLostError):
        run(script)


def test_a_connection_that_ends_is_told_in_plain_words(
    run: Callable[[Script], Worked], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script([BEGINS])

    def end(event: str) -> None:
        raise ConnectionError("Client is shutting down.")

    monkeypatch.setattr(script, "get", end)
    with pytest.raises(RemoteError, match="Ray tells of it no more: ConnectionError: Client is shutting down"):
        run(script)


def test_over_a_client_a_beginning_is_noted_by_an_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"task": DONE, "has": False}
    ready: list[bool] = [False, False, True]
    monkeypatch.setattr(ray_running, "LOOK", 0.0)
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs if ready.pop(0) else [], []))

    def get(ref: str, timeout: float = 0) -> object:
        if ref == "lost":
            raise ray.exceptions.ActorDiedError
        return values[ref]

    monkeypatch.setattr(ray, "get", get)
    asked: list[str] = []
    begun = SimpleNamespace(has=SimpleNamespace(remote=lambda name: asked.append(name) or "has"))
    task = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *given: given[2] and "task"))
    monkeypatch.setattr(ray, "remote", lambda work: task)
    running = start(cast(Work, None), {}, begun)
    assert running.news() is None
    values["has"] = True
    assert running.news() == "began"
    assert running.news() is DONE
    assert len(set(asked)) == 1
    ready.append(False)
    begun.has.remote = lambda name: "lost"
    assert running.news() is None, "what notes it is gone: the task goes on"
