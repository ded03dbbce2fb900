"""The learning rate of a training, found by short trainings of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .checkpoint import cloned
from .judge import Judge
from .optimizer import FIRST_RATE, RATES, Average, pace_of, schedule
from .rates import climb, trial_steps
from .stepping import Stepper

TELLING = 25
"""Steps of a trial from which it tells whether scales are better left alone: fewer hardly move one."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What the trials came to.

    Attributes:
        rate: that is taken.
        steps, judgements: that were spent on them.
    """

    rate: float
    steps: int = 0
    judgements: int = 0


def probe(stepper: Stepper, judge: Judge, total: int, say: Callable[[str], None]) -> Probed:
    """The rate that a short training of its own brings furthest; the one that was given, where there is one.

    Each one ends as a training does, with a rate that falls to nothing: among trainings that are cut off, low rates
    look better than they are. The student stays where the best of them left it. With the best rate it is also tried
    whether scales of a quantization are better left alone, where a trial is long enough to tell.

    Args:
        stepper: makes the steps.
        judge: measures what they came to.
        total: steps of the training that follows.
        say: told what was found.
    """
    state, training = stepper.state, stepper.state.training
    if training.rate is not None:
        return Probed(training.rate)
    steps = trial_steps(total)
    best: tuple[float, dict[str, Any]] = (state.facts["best"], state.good)

    def loss_of(rate: float) -> float:
        nonlocal best
        loss = _trained(stepper, judge, rate, steps)
        if loss < best[0]:
            best = (loss, cloned(state.values()))
        state.restore(state.good)
        return loss

    optimizer = training.optimizer
    pace, state.facts["pace"] = state.facts["pace"], pace_of(steps)
    rate, learned, tried = climb(RATES[optimizer], FIRST_RATE[optimizer], loss_of)
    if state.inner.scales and optimizer == "adamw" and steps >= TELLING:
        state.facts["pace"], tried = 0.0, tried + 1
        if loss_of(rate) < learned:
            pace = 0.0
            say("scales stay as they are: learning them brings nothing")
    state.restore(best[1])
    state.facts["pace"] = pace
    state.average = Average(state.inner.student, training.average)
    if best[0] < state.facts["best"]:
        state.facts |= {"best": best[0], "metric": judge.metric()}
        state.best = cloned(state.average.values)
    return Probed(state.fabric.broadcast(rate), steps * tried, tried)


def _trained(stepper: Stepper, judge: Judge, rate: float, steps: int) -> float:
    """Loss on what is held out after a short training; infinite where it went astray."""
    for step in range(steps):
        if not stepper.advance(step, rate, schedule(step, steps), stepper.led(step, steps)):
            return math.inf
    loss = judge.loss(average=False)
    return loss if math.isfinite(loss) else math.inf
