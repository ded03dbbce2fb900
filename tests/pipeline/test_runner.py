"""What runs, in which order and beside what; what is reused; what becomes of failures."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builds import Heard
from toy_stages import Events, NoSettings, Text, chain, plan, scopes
from trtcompress.codec import encode
from trtcompress.runner import VALUE, Run, run_plan
from trtcompress.stage import ModelRef, Stage, stage
from trtcompress.store import Store
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.errors import DataError, StageError, StoreError, TrtCompressError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def run(tmp_path: Path, store: Store, stages: Any, jobs: int = 1, **sections: Any) -> tuple[Run, Heard]:
    heard = Heard()
    return run_plan(plan(tmp_path / "p", stages, **sections), store, heard, jobs=jobs), heard


def test_values_flow_by_name(tmp_path: Path, store: Store):
    made, _ = run(tmp_path, store, scopes(), targets=["rtx-4090", "rtx-3090:int8"])
    assert made.values["verdict", "rtx-4090"].text == (
        "rtx-4090: ground>trt-int8>rtx-4090/trt-int8 | ground>trt-fp16>rtx-4090/trt-fp16"
    )
    assert made.values["verdict", "rtx-3090"].text == "rtx-3090: ground>trt-int8>rtx-3090/trt-int8"


def test_a_second_run_works_nothing(tmp_path: Path, store: Store):
    events = Events()
    first, heard = run(tmp_path, store, chain(events))
    assert heard.worked == ["read", "change", "tell"]
    again, heard = run(tmp_path, store, chain(events))
    assert (heard.worked, heard.reused) == ([], ["read", "change", "tell"])
    assert events.seen == ["read", "change", "tell"]
    assert again.values == first.values
    path = again.values["read", ""].path
    assert path.is_relative_to(store.path(again.steps[0].key))
    assert path.read_text() == again.values["read", ""].text


def test_a_store_can_be_moved(tmp_path: Path, store: Store):
    run(tmp_path, store, chain(Events()))
    moved = Store(store.root.rename(tmp_path / "moved"))
    made, heard = run(tmp_path, moved, chain(Events()))
    assert heard.worked == []
    assert made.values["read", ""].path.is_relative_to(moved.root)


def test_what_depends_on_a_change_runs_and_what_does_not_does_not(tmp_path: Path, store: Store):
    run(tmp_path, store, chain(Events()))
    _, heard = run(tmp_path, store, chain(Events()), quantize={"method": "minmax"})
    assert (heard.worked, heard.reused) == (["change", "tell"], ["read"])


def test_the_same_value_cuts_off_early(tmp_path: Path, store: Store):
    run(tmp_path, store, chain(Events(), middle=lambda text: "same"))
    _, heard = run(tmp_path, store, chain(Events(), middle=lambda text: "same"), quantize={"method": "minmax"})
    assert (heard.worked, heard.reused) == (["change"], ["read", "tell"])


def lose_value(entry: Path) -> None:
    (entry / VALUE).unlink()


def spoil_value(entry: Path) -> None:
    (entry / VALUE).write_text('{"text": 3}')


def lose_file(entry: Path) -> None:
    (entry / "read.txt").unlink()


@pytest.mark.parametrize("damage", [lose_value, spoil_value, lose_file])
def test_a_damaged_entry_is_made_again(tmp_path: Path, store: Store, damage: Callable[[Path], None]):
    first, _ = run(tmp_path, store, chain(Events()))
    damage(store.path(first.steps[0].key))
    again, heard = run(tmp_path, store, chain(Events()))
    assert (heard.worked, heard.reused) == (["read"], ["change", "tell"])
    assert again.values == first.values


def test_a_value_whose_file_lies_in_an_entry_that_is_gone_is_made_again(tmp_path: Path, store: Store):
    """An engine names the graph in the entry of the stage before."""

    @stage(output="made", version=1, leaves="made")
    def make(model: ModelRef, settings: NoSettings, out: Path) -> Text:
        (out / "f").write_text("f")
        return Text("made", out / "f")

    @stage(output="kept", version=1, leaves="kept")
    def keep(made: Text, settings: NoSettings) -> Text:
        return made

    first, _ = run(tmp_path, store, (make, keep))
    entry = next(entry for entry in store.entries() if entry.key == first.steps[0].key)
    assert encode(first.values["kept", ""], store.root)["path"] == encode(first.values["made", ""], store.root)["path"]
    store.remove(entry)
    again, heard = run(tmp_path, store, (make, keep))
    assert heard.worked == ["make"]
    assert again.values["kept", ""].path.read_text() == "f"


def failing(error: BaseException) -> tuple[Stage, Events]:
    events = Events()

    @stage(output="broken", version=1, leaves="broken", scope="target")
    def break_(model: ModelRef, settings: NoSettings, out: Path) -> Text:
        events("broke")
        (out / "half").write_text("x")
        if len(events.seen) < 3:
            raise error
        return Text("well")

    return break_, events


def test_failures_are_never_cached(tmp_path: Path, store: Store):
    broken, events = failing(ValueError("no luck"))
    for _ in range(2):
        with pytest.raises(StageError):
            run(tmp_path, store, [broken])
        assert store.entries() == []
        assert list((store.root / "tmp").iterdir()) == []
    run(tmp_path, store, [broken])
    assert len(events.seen) == 3


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (ValueError("no luck\nin two lines"), "ValueError: no luck"),
        (KeyError(), "KeyError: KeyError"),
        (MemoryError("out"), "MemoryError: out"),
        (SystemExit(0), "SystemExit: 0"),
        (RecursionError("deep"), "RecursionError: deep"),
    ],
)
def test_an_exception_names_the_stage(tmp_path: Path, store: Store, error: BaseException, what: str):
    with pytest.raises(StageError) as caught:
        run(tmp_path, store, [failing(error)[0]])
    assert (caught.value.what, caught.value.where) == (what, "stage break cpu")
    assert caught.value.exit_code == 4
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [DataError("bad sample", where="d.npz"), StageError("told"), TrtCompressError("any")])
def test_errors_for_the_user_pass_unchanged(tmp_path: Path, store: Store, error: TrtCompressError):
    with pytest.raises(TrtCompressError) as caught:
        run(tmp_path, store, [failing(error)[0]])
    assert caught.value is error


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "no space left"), (errno.EROFS, "cannot write here")])
def test_a_full_or_read_only_disk(tmp_path: Path, store: Store, number: int, words: str):
    with pytest.raises(StoreError, match=words) as caught:
        run(tmp_path, store, [failing(OSError(number, os.strerror(number), "/x/file"))[0]])
    assert caught.value.where == "/x/file"
    assert caught.value.hint


def test_what_was_done_before_a_failure_is_kept(tmp_path: Path, store: Store):
    ok, _, _ = chain(Events())
    broken, _ = failing(ValueError("no"))
    with pytest.raises(StageError):
        run(tmp_path, store, [ok, broken])
    _, heard = run(tmp_path, store, [ok])
    assert heard.reused == ["read"]


def parallel(parties: int) -> tuple[Stage, Stage]:
    """An engine stage whose runs wait for each other, and one whose runs may not meet."""
    barrier = threading.Barrier(parties, timeout=20)
    running: list[str] = []

    @stage(output="engine", version=1, leaves="e/{subject}", scope="engine")
    def compile_(model: ModelRef, encoding: Any, target: Any, settings: NoSettings) -> Text:
        barrier.wait()
        return Text(f"{target.name}/{encoding.name}")

    @stage(output="timed", version=1, leaves="t/{subject}", scope="target", alone=True)
    def measure(engines: tuple[Text, ...], target: Any, settings: NoSettings) -> Text:
        running.append(target.name)
        threading.Event().wait(0.05)
        assert running == [target.name]
        running.remove(target.name)
        return Text(target.name)

    return compile_, measure


def test_jobs_work_at_once_and_measurements_alone(tmp_path: Path, store: Store):
    made, heard = run(tmp_path, store, parallel(4), jobs=4, targets=["rtx-4090", "rtx-3090"])
    assert len(heard.worked) == 6
    assert made.values["timed", "rtx-3090"].text == "rtx-3090"


def test_what_was_done_first_does_not_change_the_order(tmp_path: Path, store: Store):
    second_is_done = threading.Event()

    @stage(output="value", version=1, leaves="values/{subject}", scope="encoding")
    def swap(model: ModelRef, encoding: Encoding, settings: NoSettings) -> Text:
        if encoding.name == "trt-int8":
            assert second_is_done.wait(20)
            threading.Event().wait(0.3)  # while the other one is put into the store
        else:
            second_is_done.set()
        return Text(encoding.name)

    made, heard = run(tmp_path, store, (swap,), jobs=2, targets=["rtx-4090"])
    assert [ran.step.subject for ran in made.steps] == ["trt-int8", "trt-fp16"]
    assert [ref for ref in made.values if ref[0] == "value"] == [("value", "trt-int8"), ("value", "trt-fp16")]
    assert sorted(heard.worked) == ["swap trt-fp16", "swap trt-int8"]


def test_no_more_than_jobs_work_at_once(tmp_path: Path, store: Store):
    most, now, lock = 0, 0, threading.Lock()

    @stage(output="engine", version=1, leaves="e/{subject}", scope="engine")
    def compile_(model: ModelRef, target: Any, encoding: Any, settings: NoSettings) -> Text:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.03)
        with lock:
            now -= 1
        return Text("")

    run(tmp_path, store, [compile_], jobs=2, targets=["rtx-4090", "rtx-3090", "rtx-5090"])
    assert most == 2


def test_a_measurement_waits_until_nothing_else_runs(tmp_path: Path, store: Store):
    """Also while steps that could run beside others are still there."""
    events = Events()

    @stage(output="quick", version=1, leaves="q")
    def quick(model: ModelRef, settings: NoSettings) -> Text:
        events("quick")
        return Text("")

    @stage(output="timed", version=1, leaves="t", alone=True)
    def measure(quick: Text, settings: NoSettings) -> Text:
        events("measure starts")
        threading.Event().wait(0.1)
        events("measure ends")
        return Text("")

    @stage(output="slow", version=1, leaves="s/{subject}", scope="engine")
    def slow(model: ModelRef, target: Any, encoding: Any, settings: NoSettings) -> Text:
        events("slow starts")
        threading.Event().wait(0.05)
        events("slow ends")
        return Text("")

    run(tmp_path, store, [quick, measure, slow], jobs=3, targets=["rtx-4090", "rtx-3090"])
    starts = events.seen.index("measure starts")
    assert events.seen[starts + 1] == "measure ends"
    before = events.seen[:starts]
    assert before.count("slow starts") == before.count("slow ends")


def test_the_listener_hears_progress(tmp_path: Path, store: Store):
    told: list[tuple[str, int, int | None]] = []

    class Listener(Heard):
        def progressed(self, step: Any, done: int, total: int | None) -> None:
            told.append((step.label, done, total))

    run_plan(plan(tmp_path / "p", chain(Events())), store, Listener())
    assert told == [("tell", 1, 2)]


def test_only_what_the_stage_returned_is_seen(tmp_path: Path, store: Store):
    """A value is read back from the store, so that a cold run and a warm one give the same."""
    cold, _ = run(tmp_path, store, chain(Events()))
    assert cold.values["read", ""].path.is_relative_to(store.root / "objects")
