"""How long a training takes: steps out of epochs and minutes, and what is told of it before."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tiny_views import loop_of
from trtcompress.recovery import loop as loop_module
from trtcompress.recovery import outset
from trtcompress.recovery.augment import Changes
from trtcompress.recovery.checkpoint import load
from trtcompress.recovery.loop import Loop
from trtcompress.recovery.settings import Training, planned_steps
from trtcompress.recovery.state import STATE

SHORT = Training(steps=60, batch=16, rate=3e-3)


def clocked(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, takes: Callable[[int], float], judging: float
) -> Callable[[], float]:
    """Let a clock go on by what each step takes and by the seconds of a judgement; it tells the time."""
    seconds = [0.0]
    for module in (loop_module, outset):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: seconds[0]))
    advance, judge = loop.stepper.advance, loop.judge.loss

    def advanced(step: int, rate: float, share: float, led: float) -> bool:
        seconds[0] += takes(step)
        return advance(step, rate, share, led)

    def judged(average: bool = True) -> float:
        seconds[0] += 0 if average else judging  # the average is judged by a call of the same
        return judge(average)

    monkeypatch.setattr(loop.stepper, "advance", advanced)
    monkeypatch.setattr(loop.judge, "loss", judged)
    return lambda: seconds[0]


@pytest.mark.parametrize(("minutes", "slower", "steps"), [(0.1, 1, 480), (0.2, 1, 990), (0.2, 3, 500)])
def test_minutes_become_steps(tmp_path, monkeypatch, minutes, slower, steps):
    """By a clock that goes on by 10 ms a step and by 50 ms a judgement, or from the 250th step on more slowly."""
    said: list[str] = []
    training = replace(SHORT, steps=None, minutes=minutes, patience=1000)
    loop, _ = loop_of(tmp_path, training, told=lambda what, done, total: said.append(what))
    now = clocked(loop, monkeypatch, lambda step: 0.01 * (slower if step > 250 else 1), 0.05)
    assert loop.run().steps == pytest.approx(steps, rel=0.1)
    assert now() == pytest.approx(60 * minutes, rel=0.1)
    (told,) = (re.fullmatch(r"about ([\d,]+) steps fit into (.+) min", line) for line in said[:1])
    assert told is not None
    assert float(told[2]) == minutes
    at_first = 480 if minutes == 0.1 else 990
    assert int(told[1].replace(",", "")) == pytest.approx(at_first, rel=0.1), "as fast as the first ones"


@pytest.mark.parametrize("rate", [None, 3e-3])
def test_how_long_it_takes_is_told_once_before_rates_are_tried(tmp_path, monkeypatch, rate):
    said: list[str] = []
    training = replace(SHORT, steps=400, rate=rate, patience=1000)
    loop, _ = loop_of(tmp_path, training, told=lambda what, done, total: said.append(what))
    now = clocked(loop, monkeypatch, lambda step: 2.0, 5.0)
    loop.run()
    told = re.fullmatch(r"training takes about (\d+) min \(400 steps\)", said[0])
    assert told is not None
    assert int(told[1]) == pytest.approx(now() / 60, rel=0.1)
    assert [line for line in said if "about" in line] == said[:1]


def test_how_long():
    assert planned_steps(Training(steps=7), 10) == 7
    assert planned_steps(Training(epochs=1.5), 10) == 15
    assert planned_steps(Training(minutes=1), 10) is None
    assert planned_steps(Training(), 1) == 200
    assert planned_steps(Training(), 100) == 2000


@pytest.mark.parametrize(("minutes", "changed"), [(0.0002, False), (1.0, True)])
def test_in_a_few_minutes_samples_stay_as_they_are(tmp_path, monkeypatch, minutes, changed):
    """As with epochs: where each comes up a few times, changed ones would only disturb."""
    loop, _ = loop_of(tmp_path, replace(SHORT, steps=None, minutes=minutes))
    monkeypatch.setattr(loop.state, "feed", replace(loop.state.feed, changes=Changes(mix=True)))
    outset.lay_out(loop.stepper, loop.judge, lambda what: None)
    assert bool(loop.state.feed.changes) is changed
    again, _ = loop_of(tmp_path, replace(SHORT, steps=None, minutes=minutes))
    monkeypatch.setattr(again.state, "feed", replace(again.state.feed, changes=Changes(mix=True)))
    again.state.restore(load(tmp_path / STATE))
    assert bool(again.state.feed.changes) is changed, "a resumed training, too"
