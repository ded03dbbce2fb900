"""The training loop: steps, judgements, checkpoints, and the way back where it diverges."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trtcompress_graph.errors import RecoverError

from .feed import Feed
from .judge import Judge, Metric
from .learner import Learner
from .optimizer import schedule
from .outset import lay_out
from .pace import about, laid_out_again, still_fitting
from .settings import Training
from .state import State
from .stepping import Stepper

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ROLLBACKS = 8
"""After so many ways back to a good state a training counts as diverging."""

Told = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training came to.

    Attributes:
        steps: that were made.
        best_step: after which the student was best; 0: it was best before the first one, as it came or as the trials
            of rates left it.
        rate: learning rate that was taken.
        before, after: loss on the samples that are held out, of the student as this training began and of the best one.
        metric_before, metric: of both on the same samples, where there are labels and a metric.
        rollbacks: how often it diverged, and went back.
        by_labels: losses are of labels alone, and not of the teacher's answers.
        fitted: what had brought the student nearer before the training: `ranges` or `blocks`; empty: nothing had.
        came: loss before what had fitted it first; where it is given, `metric_before` is of then too.
    """

    steps: int
    best_step: int
    rate: float
    before: float
    after: float
    metric_before: float | None
    metric: float | None
    rollbacks: int
    by_labels: bool = False
    fitted: str = ""
    came: float | None = None


class Loop:
    """Trains a learner, and goes on from the last checkpoint where there is one.

    Args:
        fabric: devices and precision.
        learner: student and losses, not yet set up.
        feed: examples.
        training: how long and how.
        folder: of the checkpoints.
        told: of the progress, in the first process.
        metric: measures the student as it is; None where there is no metric.
        metric_name: its name, for the progress.
        norms: BatchNorm takes the statistics of each batch, and moves its running ones.
    """

    def __init__(
        self,
        fabric: Fabric,
        learner: Learner,
        feed: Feed,
        training: Training,
        folder: Path,
        told: Told,
        metric: Metric = lambda: None,
        metric_name: str = "metric",
        *,
        norms: bool = False,
    ) -> None:
        self._training, self._told = training, told
        self.state = State(fabric, learner, feed, training, folder)
        self.stepper = Stepper(self.state, norms=norms)
        self.judge = Judge(self.state, metric, metric_name)

    def run(self) -> Outcome:
        """Train to the end.

        Raises:
            RecoverError: it diverges again and again.
        """
        state = self.state
        found = state.kept()
        if found is None:
            lay_out(self.stepper, self.judge, self._say)
        else:
            state.restore(found)
            self._say_what_is_left()
        self._clock = time.perf_counter()
        while self._goes_on:
            step, total = state.facts["step"], state.facts["total"]
            share = state.facts["scale"] * schedule(step, total)
            if not self.stepper.advance(step, state.facts["rate"], share, self.stepper.led(step, total)):
                self._go_back()
                continue
            state.facts["step"] += 1
            state.average.follow(state.facts["step"])
            at_end = state.facts["step"] == state.facts["total"] or self._is_late()
            if at_end or state.facts["step"] % state.facts["every"] == 0:
                judged = self.judge.judge()
                if judged is None:
                    self._go_back()
                    continue
                self._say(judged)
                self._keep_to_the_minutes()
                state.keep()
        if state.facts["quiet"] >= self._training.patience:
            self._say(f"no gain in {self._training.patience} judgements: it ends here")
        return self._finish()

    @property
    def _goes_on(self) -> bool:
        facts = self.state.facts
        return bool(facts["step"] < facts["total"] and facts["quiet"] < self._training.patience)

    def _say_what_is_left(self) -> None:
        facts = self.state.facts
        step, total = facts["step"], facts["total"]
        if not self._goes_on:  # it was stopped before its weights were written
            self._say(f"nothing is left to train: {step:,} of {total:,} steps were made")
            return
        seconds = facts["spent"] / step if step else facts["seconds"]
        self._say(f"about {about((total - step) * seconds)} left: {step:,} of {total:,} steps were made")

    def _keep_to_the_minutes(self) -> None:
        """Lay out anew what is left, as fast as steps were so far: other work on the machine changes their pace."""
        facts, now = self.state.facts, time.perf_counter()
        facts["spent"] += now - self._clock
        self._clock = now
        if facts["limit"] is not None and facts["step"] < facts["total"]:
            total = self.state.fabric.broadcast(still_fitting(facts["step"], facts["spent"], facts["limit"]))
            facts |= {"total": total, "every": laid_out_again(total, facts["every"], facts["judgements"])}

    def _is_late(self) -> bool:
        """Whether the minutes are over before the next judgement; of several processes each would find another step."""
        limit = self.state.facts["limit"]
        over = limit is not None and self.state.facts["spent"] + time.perf_counter() - self._clock > limit
        return over and self.state.share.world == 1

    def _go_back(self) -> None:
        """To the last state that was good, with half the rate."""
        state = self.state
        state.restore(state.good)
        facts = state.facts
        facts["rollbacks"] += 1
        facts["scale"] *= 0.5
        state.good["facts"] |= {name: facts[name] for name in ("rollbacks", "scale")}
        self._say(f"it diverged: back to step {facts['step']} at {facts['scale']:g} of the rate")
        if facts["rollbacks"] > ROLLBACKS:
            raise RecoverError(
                f"the training diverges: {facts['rollbacks']} times numbers were not finite, or the loss far above the "
                f"start, at rates down to {facts['rate'] * facts['scale']:.2g}; nothing was written",
                where="recover",
                hint="give a lower rate (lr, such as 1e-5), precision 32, or look for samples that the model answers "
                "with NaN",
            )

    def _finish(self) -> Outcome:
        """Leave the student with the weights that were best."""
        self.state.average.load(self.state.best)
        facts = self.state.facts
        return Outcome(
            steps=facts["step"],
            best_step=facts["best_step"],
            rate=facts["rate"],
            before=facts["before"],
            after=facts["best"],
            metric_before=facts["metric_before"],
            metric=facts["metric"],
            rollbacks=facts["rollbacks"],
            by_labels=self.state.inner.graduates,
        )

    def _say(self, what: str) -> None:
        if self.state.share.rank == 0:
            self._told(what, self.state.facts["step"], self.state.facts.get("total"))
