"""What the shared store of a Ray cluster lost is sent again. No cluster runs here: nodes are stores of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from builds import Heard
from toy_stages import Events, Method, NoSettings, Text, plan
from trtcompress import ray_node, ray_runner
from trtcompress.ray_node import Work, Worked, work
from trtcompress.ray_runner import Cluster
from trtcompress.ray_watch import Watch
from trtcompress.runner import Run
from trtcompress.shared_store import SharedStore
from trtcompress.stage import ModelRef, Stage, stage
from trtcompress.store import Store
from trtcompress_graph.errors import StoreError


def stages(events: Events) -> tuple[Stage, ...]:
    """read -> passed -> told: the second names a file of the first."""

    @stage(output="read", version=1, leaves="read")
    def read(model: ModelRef, settings: NoSettings, out: Path) -> Text:
        events("read")
        (out / "read.txt").write_text(model.digest)
        return Text(model.digest, out / "read.txt")

    @stage(output="passed", version=1, leaves="passed")
    def pass_on(read: Text, settings: NoSettings) -> Text:
        events("pass_on")
        return read

    @stage(output="told", version=1, leaves="told")
    def tell(passed: Text, settings: Method) -> Text:
        events("tell")
        assert passed.path is not None
        return Text(f"{settings.method} {passed.path.read_text()}")

    return read, pass_on, tell


@dataclass
class Machines:
    """A driver, and nodes that do what Ray would have them do."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    events: Events = field(default_factory=Events)
    node: str = "node"
    before: Callable[[], None] = field(default=lambda: None)

    @property
    def share(self) -> Path:
        return self.folder / "share"

    def run_task(self, step: Any, task: Work, *_: object) -> Worked:
        self.before()
        self.monkeypatch.setenv("TRTCOMPRESS_STORE", str(self.folder / self.node))
        return work(task)

    def build(self, driver: str = "driver", method: str = "minmax") -> Run:
        made = plan(self.folder / "p", stages(self.events), quantize={"method": method})
        by_name = {step.stage.name: step.stage for step in made.steps}
        self.monkeypatch.setattr(ray_node, "stages_by_name", lambda: by_name)
        self.monkeypatch.setattr(ray_runner, "run_task", self.run_task)
        url = f"file://{self.share}"
        store = Store(self.folder / driver, SharedStore(url))
        # Ray's part is `run_task`, which asks the watch
        return Cluster(url, cast(Watch, None), {}).run_plan(made, store, Heard())

    def lose(self, *names: str) -> None:
        for name in names:
            shutil.rmtree(self.share / name)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    (tmp_path / "share").mkdir()
    return Machines(tmp_path, monkeypatch)


losing = pytest.mark.parametrize("names", [("entries",), ("files",), ("entries", "files")], ids=" ".join)


@losing
def test_what_a_step_needs_and_was_lost_is_sent_again(machines: Machines, names: tuple[str, ...], caplog):
    for _ in range(2):  # the second notes that all was sent
        machines.build()
    machines.lose(*names)
    machines.node = "a node that joined"
    made = machines.build(method="mse")
    assert machines.events.seen == ["read", "pass_on", "tell", "tell"]
    assert made.values["told", ""].text.startswith("mse ")
    assert "had lost what stage tell needs or made; it is sent again" in caplog.text
    caplog.clear()
    machines.node = "another"
    machines.build(method="entropy")
    assert "lost" not in caplog.text


@losing
def test_what_a_node_made_and_was_lost_is_sent_again(machines: Machines, names: tuple[str, ...]):
    first = machines.build()
    machines.lose(*names)
    assert machines.build("a driver without it").values["told", ""] == first.values["told", ""]
    assert machines.events.seen == ["read", "pass_on", "tell"], "the node had all of it"


def test_what_is_lost_again_and_again_ends_the_build(machines: Machines):
    machines.build()
    machines.node = "a node that joined"
    machines.before = lambda: machines.lose("entries")
    with pytest.raises(StoreError, match="the shared store does not have the entry") as caught:
        machines.build(method="mse")
    assert "a running build" in caught.value.hint
    machines.before = lambda: None
    machines.build(method="mse")
