"""What a build prints where there is no terminal."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from trtcompress.cli import console, main
from trtcompress.cli.console import ConsoleListener


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(console, "say", found.append)
    return found


def test_a_step_that_works_says_so_when_it_starts(lines):
    listener, step = ConsoleListener(), SimpleNamespace(label="export")
    listener.planned(SimpleNamespace(steps=[step]))
    listener.started(step)
    listener.finished(step, 12.0, reused=False)
    assert [line.split() for line in lines] == [["export:", "started"], ["[1/1]", "export", "12.0", "s"]]


def test_a_step_that_is_reused_says_one_thing(lines):
    listener, step = ConsoleListener(), SimpleNamespace(label="export")
    listener.planned(SimpleNamespace(steps=[step]))
    listener.finished(step, 0.0, reused=True)
    assert len(lines) == 1


def test_quarters_of_the_work_where_it_is_known(lines):
    listener, step = ConsoleListener(), SimpleNamespace(label="validate cpu")
    listener.started(step)
    for done in range(0, 101, 10):
        listener.progressed(step, done, 100)
    assert [line.split()[-1] for line in lines[1:]] == ["30/100", "60/100", "90/100"]


def test_quarters_begin_anew_where_a_step_does_the_next_thing(lines):
    listener, step = ConsoleListener(), SimpleNamespace(label="prune")
    listener.started(step)
    for total in (100, 50):
        for done in range(0, total, 10):
            listener.progressed(step, done, total)
    assert [line.split()[-1] for line in lines[1:]] == ["30/100", "60/100", "90/100", "20/50", "40/50"]


def test_now_and_then_where_it_is_not_known(lines, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    listener, step = ConsoleListener(), SimpleNamespace(label="emulate trt-int8")
    listener.started(step)
    for done in range(1, 8):
        listener.progressed(step, done, None)
    assert [line.split(": ")[1] for line in lines[1:]] == ["3 samples", "6 samples"]


def test_a_message_reaches_the_stderr_of_the_start(capsys, monkeypatch):
    """Whatever stands in its place by then."""
    monkeypatch.setattr(main, "_stderr", main.sys.stderr)
    monkeypatch.setattr(main.sys, "stderr", None)
    main.say("interrupted")
    monkeypatch.undo()
    assert capsys.readouterr().err == "interrupted\n"
