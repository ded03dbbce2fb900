"""The training loop on a network of two layers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tiny_views import loop_of
from trtcompress.recovery import outset
from trtcompress.recovery.batches import Batches
from trtcompress.recovery.checkpoint import load
from trtcompress.recovery.optimizer import Average, schedule
from trtcompress.recovery.settings import Training
from trtcompress.recovery.state import STATE
from trtcompress_graph.errors import RecoverError

TESTS = str(Path(__file__).parents[2])
SHORT = Training(steps=60, batch=16, rate=3e-3)


def weights(pair) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in pair.student.named_parameters()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_student_learns_and_the_best_one_is_left(tmp_path):
    loop, pair = loop_of(tmp_path, replace(SHORT, steps=300, rate=1e-2))
    before = weights(pair)
    found = loop.run()
    assert found.after < 0.5 * found.before
    assert found.steps == 300
    assert not equal(before, weights(pair))
    assert loop.judge.loss(average=False) == pytest.approx(found.after)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_probe_picks_a_rate_that_learns(tmp_path, optimizer):
    loop, _ = loop_of(tmp_path, replace(SHORT, steps=100, rate=None, optimizer=optimizer))
    found = loop.run()
    assert found.rate >= 1e-3
    assert found.after < found.before


def test_the_training_goes_on_from_where_the_probe_came(tmp_path):
    loop, _ = loop_of(tmp_path, replace(SHORT, steps=200, rate=None))
    outset.lay_out(loop.stepper, loop.judge, lambda what: None)
    assert loop.judge.loss(average=False) < loop.state.facts["before"]
    assert loop.judge.loss() == loop.judge.loss(average=False), "the average starts anew there"
    assert loop.state.facts["best"] == loop.judge.loss(), "what the trials found counts"


@pytest.mark.parametrize(("shrinks", "size"), [(True, 16), (False, 64)])
def test_where_the_minutes_are_short_a_step_takes_fewer_samples(tmp_path, monkeypatch, shrinks, size):
    monkeypatch.setattr(outset, "FEW", 10**9)
    training = Training(minutes=0.005, batch=64, rate=3e-3, shrinks=shrinks)
    loop, _ = loop_of(tmp_path, training)
    assert loop.run().steps > 0
    assert loop.state.feed.batches.size == size
    again, _ = loop_of(tmp_path, training)
    again.state.restore(load(tmp_path / STATE))
    assert again.state.feed.batches.size == size, "a resumed training takes the same batches"


def test_a_student_is_judged_in_batches_of_one_size_whatever_a_step_takes(tmp_path):
    """Losses by relations between samples depend on it."""
    loop, _ = loop_of(tmp_path, Training(batch=64), (("relations", 1.0),))
    before = loop.judge.loss()
    for size in (32, 4):
        loop.state.resize(size)
        assert [len(rows) for _, rows in loop.state.feed.batches.judged()] == [16], "all that are held out"
        assert loop.judge.loss() == before


def test_the_same_run_gives_the_same_bits(tmp_path):
    runs = []
    for name in ("one", "other"):
        loop, pair = loop_of(tmp_path / name, SHORT, (("logits", 1.0), ("features", 0.5)))
        loop.run()
        runs.append(weights(pair))
    assert equal(*runs)


def test_an_epoch_is_shuffled_once(tmp_path, monkeypatch):
    """Though the first batch of the next one is read while the last of this one is computed."""
    drawn: list[int] = []
    shuffled = Batches._shuffled
    monkeypatch.setattr(Batches, "_shuffled", lambda self, number: drawn.append(number) or shuffled(self, number))
    loop, _ = loop_of(tmp_path, SHORT)
    loop.run()
    epochs = SHORT.steps // loop.state.feed.batches.per_epoch
    assert drawn == list(range(epochs + 1)), "and of the one behind the last step"


KILLED = """
import os, pathlib, runpy, signal, sys
from trtcompress.recovery.stepping import Stepper

held = runpy.run_path(sys.argv[1])
advance = Stepper.advance

def advance_or_die(self, step, rate, share, led):  # in the middle of a step, behind the third checkpoint
    if step == 22:
        os.kill(os.getpid(), signal.SIGKILL)
    return advance(self, step, rate, share, led)

Stepper.advance = advance_or_die
held["loop_of"](pathlib.Path(sys.argv[2]), held["SHORT"])[0].run()
"""


def test_it_goes_on_at_the_same_step_after_a_kill(tmp_path):
    loop, pair = loop_of(tmp_path / "peace", SHORT)
    loop.run()
    expected = weights(pair)
    # A process of its own: a fork of this one would hang, since only the thread that forks lives on.
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, __file__, str(tmp_path / "killed")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    said: list[tuple[int, str]] = []
    loop, pair = loop_of(tmp_path / "killed", SHORT, told=lambda what, done, total: said.append((done, what)))
    found = loop.run()
    assert [done for done, _ in said[:2]] == [18, 24], "it went on from step 18, not from the start"
    assert said[0][1].endswith(" left: 18 of 60 steps were made")
    assert found.steps == 60
    assert equal(expected, weights(pair))


def test_a_damaged_checkpoint_is_no_checkpoint(tmp_path):
    loop, _ = loop_of(tmp_path, SHORT)
    first = loop.run()
    (tmp_path / STATE).write_bytes(b"PK damaged")
    loop, _ = loop_of(tmp_path, SHORT)
    assert loop.run() == first


def test_what_is_not_finite_rolls_back_and_halves_the_rate(tmp_path, monkeypatch):
    loop, pair = loop_of(tmp_path, SHORT)
    forward, calls = loop.state.inner.forward, 0

    def poisoned(*arguments, judged=False, **named):
        nonlocal calls
        calls += not judged
        return forward(*arguments, judged=judged, **named) * (float("nan") if calls == 40 and not judged else 1.0)

    monkeypatch.setattr(loop.state.inner, "forward", poisoned)
    found = loop.run()
    assert (found.rollbacks, found.steps) == (1, 60)
    assert loop.state.facts["scale"] == 0.5
    assert all(torch.isfinite(value).all() for value in weights(pair).values())


def test_a_run_that_diverges_is_refused_and_leaves_finite_weights(tmp_path, monkeypatch):
    loop, pair = loop_of(tmp_path, SHORT)
    forward = loop.state.inner.forward
    monkeypatch.setattr(
        loop.state.inner,
        "forward",
        lambda *a, judged=False, **n: forward(*a, judged=judged, **n) * (1.0 if judged else float("inf")),
    )
    with pytest.raises(RecoverError, match="diverges") as raised:
        loop.run()
    assert "(lr, such as" in raised.value.hint
    assert all(torch.isfinite(value).all() for value in weights(pair).values())


def test_a_loss_far_above_the_start_diverges_though_it_is_finite(tmp_path):
    said: list[str] = []
    training = replace(SHORT, rate=1e5)
    loop, pair = loop_of(tmp_path, training, told=lambda what, done, total: said.append(what))
    before = weights(pair)
    with pytest.raises(RecoverError, match="diverges") as raised:
        loop.run()
    assert "(lr, such as" in raised.value.hint
    assert said[-1] == "it diverged: back to step 0 at 0.00195312 of the rate"
    assert equal(before, weights(pair))


@pytest.mark.parametrize(("judged", "times"), [(True, 1), (False, 0)])
def test_one_judgement_far_above_the_start_rolls_back_and_one_odd_batch_does_not(tmp_path, monkeypatch, judged, times):
    loop, _ = loop_of(tmp_path, SHORT)
    forward, calls = loop.state.inner.forward, 0

    def odd(*arguments, judged=False, **named):
        nonlocal calls
        calls += judged == wanted
        return forward(*arguments, judged=judged, **named) * (1e6 if judged == wanted and calls == 5 else 1.0)

    wanted = judged
    monkeypatch.setattr(loop.state.inner, "forward", odd)
    found = loop.run()
    assert (found.rollbacks, found.steps, loop.state.facts["scale"]) == (times, 60, 0.5**times)
    assert found.after < found.before


def test_a_divergence_that_rounding_leaves_below_0_is_told_as_0(tmp_path):
    loop, _ = loop_of(tmp_path, SHORT)
    assert loop.judge.told(-1.135e-05, None) == "held out 0"
    assert loop.judge.told(1.135e-05, 0.5) == "held out 1.135e-05, metric 0.5000"


def test_it_ends_early_where_nothing_is_gained(tmp_path):
    said: list[str] = []
    training = replace(SHORT, steps=400, rate=1e-9, patience=3)
    loop, pair = loop_of(tmp_path, training, told=lambda what, done, total: said.append(what))
    before = weights(pair)
    found = loop.run()
    assert 200 < found.steps < 250, "ten steps lie between judgements"
    assert said[-1] == "no gain in 3 judgements: it ends here"
    assert found.after <= found.before
    assert all(torch.allclose(before[name], value, atol=1e-4) for name, value in weights(pair).items())


def test_it_goes_on_where_high_rates_disturb_first_and_the_loss_falls_again(tmp_path, monkeypatch):
    """The loss at the start, and that after the first steps, are reached by low rates alone, at the end."""
    loop, _ = loop_of(tmp_path, replace(SHORT, steps=400, patience=3))
    losses = iter([1.0, 1.1, *(3.0 - 0.07 * judgement for judgement in range(60))])
    monkeypatch.setattr(loop.judge, "loss", lambda average=True: next(losses))
    found = loop.run()
    assert (found.steps, found.best_step) == (400, 400)
    assert found.before == 1.0


def test_small_gains_are_gains(tmp_path, monkeypatch):
    loop, _ = loop_of(tmp_path, replace(SHORT, steps=12, patience=3))
    losses = iter(0.0362 - 1e-6 * judgement for judgement in range(60))
    monkeypatch.setattr(loop.judge, "loss", lambda average=True: next(losses))
    assert loop.run().steps == 12


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_learns(tmp_path, precision):
    loop, pair = loop_of(tmp_path, replace(SHORT, steps=150, rate=1e-2, precision=precision))
    found = loop.run()
    assert found.after < 0.7 * found.before
    assert {value.dtype for value in weights(pair).values()} == {torch.float32}


def test_the_rate_rises_and_falls():
    rates = [schedule(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == 1.0
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 0.01


def test_the_average_follows_and_can_be_put_in_place():
    module = torch.nn.Linear(2, 2)
    average = Average(module, 0.5)
    start = module.weight.detach().clone()
    with torch.no_grad():
        module.weight += 1
    average.follow(100)
    assert torch.allclose(average.values["weight"], start + 0.5)
    with average.in_place():
        assert torch.equal(module.weight, average.values["weight"])
    assert torch.allclose(module.weight, start + 1)


def test_nothing_half_written(tmp_path: Path):
    loop, _ = loop_of(tmp_path, SHORT)
    loop.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool", STATE]


@pytest.mark.parametrize("patience", [10, 1])
def test_a_training_that_was_stopped_behind_its_end_says_that_nothing_is_left(tmp_path, patience):
    training = replace(SHORT, patience=patience, rate=SHORT.rate if patience > 1 else 1e-12)
    first = loop_of(tmp_path, training)[0].run()
    assert (first.steps == 60) is (patience > 1)
    said: list[str] = []
    again = loop_of(tmp_path, training, told=lambda what, done, total: said.append(what))[0].run()
    assert said[0] == f"nothing is left to train: {first.steps} of 60 steps were made"
    assert again == first
