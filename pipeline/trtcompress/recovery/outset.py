"""Before the first step: the student is judged as it is, steps are timed, a rate is found, and all is laid out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from trtcompress_graph.errors import RecoverError

from .batches import WIDE
from .judge import Judge
from .optimizer import RATES, pace_of
from .pace import FEW, JUDGEMENTS, about, fitting, interval, steps_in_words
from .probe import probe
from .rates import USUALLY_TRIED, trial_steps
from .settings import LONG, Training, planned_steps
from .stepping import Stepper

TIMED = 3
"""Steps that are timed before the training is laid out."""

LOW = 1e-8
"""Rate of what is only timed."""

LEAST = 16
"""Samples of a step that halving leaves."""


def lay_out(stepper: Stepper, judge: Judge, say: Callable[[str], None]) -> None:
    """Fix rate, steps and judgements of a training in the facts of its state, and keep it.

    Raises:
        RecoverError: the student's loss is not finite.
    """
    started = time.perf_counter()
    state, training, fabric = stepper.state, stepper.state.training, stepper.state.fabric
    loss, metric = judge.loss(), judge.metric()
    judging = float(fabric.broadcast(time.perf_counter() - started))
    if not math.isfinite(loss):
        raise RecoverError(
            "the loss of the student is not finite before any training",
            where="recover",
            hint="look at the answers of both: trtcompress validate STUDENT.onnx --reference TEACHER.onnx",
        )
    state.facts |= {"before": loss, "best": loss, "metric_before": metric, "metric": metric}
    state.note()
    seconds = _timed(stepper)
    total = planned_steps(training, state.feed.batches.per_epoch)
    judgements = JUDGEMENTS
    if total is None:
        budget = 60 * (training.minutes or 0) - (time.perf_counter() - started)
        total, judgements = fitting(budget, seconds, judging)
    total, judgements = fabric.broadcast((total, judgements))  # all processes try rates for as many steps
    if training.minutes is not None and training.augment is None and total < LONG * state.feed.batches.per_epoch:
        state.resize(state.feed.batches.size, changes=False)
        state.note()
    state.facts |= {"pace": pace_of(total), "seconds": seconds + judging / interval(total, judgements)}
    say(_foretold(total, state.facts["seconds"], judging, training))
    probed = probe(stepper, judge, total, say)
    limit = None
    if training.minutes is not None:
        total = max(1, total - probed.steps - int(probed.judgements * judging / seconds))
        limit = 60 * training.minutes - (time.perf_counter() - started)
    every = interval(total, judgements)
    state.facts |= {"rate": probed.rate, "total": total, "every": every, "judgements": judgements, "limit": limit}
    if training.rate is None and probed.rate == min(RATES[training.optimizer]):
        say(f"{probed.rate:g} is the lowest learning rate that is tried: there is little left to learn")
    size = state.feed.batches.size
    say(f"learning rate {probed.rate:g}, {total} steps of {size} samples; {judge.told(loss, metric)}")
    state.keep()


def _foretold(total: int, seconds: float, judging: float, training: Training) -> str:
    """How long a training will take, or how many steps its minutes are, in words.

    Args:
        total: its steps.
        seconds: of a step, with its share of the judgements.
        judging: seconds of a judgement.
        training: how long it was to be.
    """
    if training.minutes is not None:
        tried = "" if training.rate is not None else ", with those that try learning rates"
        fit = "fits" if total == 1 else "fit"
        return f"about {steps_in_words(total)} {fit} into {training.minutes:.3g} min{tried}"
    trials = 0.0 if training.rate is not None else USUALLY_TRIED * (trial_steps(total) * seconds + judging)
    return f"training takes about {about(total * seconds + trials)} ({steps_in_words(total)})"


def _timed(stepper: Stepper) -> float:
    """Seconds of a step; where the minutes are too short for many, the batch is halved first."""
    state, training = stepper.state, stepper.state.training
    while True:
        seconds = []
        for step in range(TIMED):
            started = time.perf_counter()
            stepper.advance(step, LOW, 1.0, 1.0)
            seconds.append(time.perf_counter() - started)
        state.restore(state.good)
        size, found = state.feed.batches.size, state.fabric.broadcast(sorted(seconds)[TIMED // 2])
        few = training.minutes is not None and 60 * training.minutes < FEW * found
        least = max(WIDE if stepper.norms else LEAST, 2 * state.share.world)  # a process compares no single sample
        if not (training.shrinks and few and size // 2 >= least):
            return float(found)
        state.resize(size // 2)
        state.note()
