"""The training loop: steps, judgements, checkpoints, and the way back where numbers are no longer finite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from trtcompress_graph.errors import RecoverError

from .across import Step
from .augment import Changes
from .batches import WIDE, Share
from .checkpoint import cloned, load, save
from .feed import Feed
from .leading import lead
from .learner import Learner
from .norms import by_batch
from .optimizer import FIRST_RATE, RATES, Average, make_optimizer, pace_of, schedule, set_rate
from .pace import FEW, JUDGEMENTS, fitting, interval, still_fitting
from .rates import climb, trial_steps
from .settings import LONG, Training, planned_steps

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STATE = "state.pt"
ROLLBACKS = 8
"""After so many ways back to a good state a training counts as diverging."""

SKIPPED = 20
"""Steps in a row that the scaler of float16 gradients may leave out while it looks for its scale."""

TIMED = 3
"""Steps that are timed before the training is laid out."""

LOW = 1e-8
"""Rate of what is only timed."""

LEAST = 16
"""Samples of a step that halving leaves."""

Told = Callable[[str, int, int | None], None]
Metric = Callable[[], float | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training came to.

    Attributes:
        steps: that were made.
        best_step: after which the student was best; 0: it was best before the first one, as it came or as the trials
            of rates left it.
        rate: learning rate that was taken.
        before, after: loss on the samples that are held out, of the student as it came and of the best one.
        metric: of the best one on the same samples, where there are labels and a metric.
        rollbacks: how often numbers were not finite.
        by_labels: losses are of labels alone, and not of the teacher's answers.
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


class Loop:
    """Trains a learner; everything that changes is in `state`, and a checkpoint is that state.

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
        self._fabric, self._feed, self._training, self._folder = fabric, feed, training, folder
        self._told, self._metric, self._metric_name = told, metric, metric_name
        self._norms = norms
        self._share = Share(fabric.global_rank, fabric.world_size)
        self._inner = learner
        optimizer = make_optimizer(learner.student, learner.terms, training, learner.scales)
        self._learner, self._optimizer = fabric.setup(learner, optimizer)
        self._raw: Optimizer = optimizer
        self._average = Average(learner.student, training.average)
        self._best = cloned(self._average.values)
        self._facts: dict[str, Any] = dict.fromkeys(("step", "rollbacks", "skipped", "quiet", "best_step"), 0)
        self._facts |= {"scale": 1.0, "size": feed.batches.size, "changes": True, "spent": 0.0}
        self._good: dict[str, Any] = {}

    def run(self) -> Outcome:
        """Train to the end, from the last checkpoint where there is one.

        Raises:
            RecoverError: the loss is not finite again and again.
        """
        found = load(self._folder / STATE)
        if found is None:
            self._begin()
        else:
            self._restore(found)
        self._clock = time.perf_counter()
        while self._facts["step"] < self._facts["total"] and self._facts["quiet"] < self._training.patience:
            step, total = self._facts["step"], self._facts["total"]
            share = self._facts["scale"] * schedule(step, total)
            if not self._advance(step, self._facts["rate"], share, self._led(step, total)):
                self._go_back()
                continue
            self._facts["step"] += 1
            self._average.follow(self._facts["step"])
            at_end = self._facts["step"] == self._facts["total"] or self._is_late()
            if at_end or self._facts["step"] % self._facts["every"] == 0:
                if self._judge():
                    self._keep_to_the_minutes()
                    self._keep()
                else:
                    self._go_back()
        if self._facts["quiet"] >= self._training.patience:
            self._say(f"no gain in {self._training.patience} judgements: it ends here")
        return self._finish()

    def _keep_to_the_minutes(self) -> None:
        """Lay out anew what is left, as fast as steps were so far: other work on the machine changes their pace."""
        facts, now = self._facts, time.perf_counter()
        facts["spent"] += now - self._clock
        self._clock = now
        if facts["limit"] is not None and facts["step"] < facts["total"]:
            total = self._fabric.broadcast(still_fitting(facts["step"], facts["spent"], facts["limit"]))
            facts |= {"total": total, "every": interval(total, facts["judgements"])}

    def _is_late(self) -> bool:
        """Whether the minutes are over before the next judgement; of several processes each would find another step."""
        limit = self._facts["limit"]
        over = limit is not None and self._facts["spent"] + time.perf_counter() - self._clock > limit
        return over and self._share.world == 1

    def _begin(self) -> None:
        """Judge the student as it came, pick a rate, and lay out the steps."""
        started = time.perf_counter()
        loss, metric = self._loss_held_out(), self._metric()
        judging = float(self._fabric.broadcast(time.perf_counter() - started))
        if not math.isfinite(loss):
            raise RecoverError(
                "the loss of the student is not finite before any training",
                where="recover",
                hint="look at the answers of both: trtcompress validate STUDENT.onnx --reference TEACHER.onnx",
            )
        self._facts |= {"before": loss, "best": loss, "metric_before": metric, "metric": metric}
        self._good = cloned(self._state())
        seconds = self._timed()
        total = planned_steps(self._training, self._feed.batches.per_epoch)
        judgements = JUDGEMENTS
        if total is None:
            budget = 60 * (self._training.minutes or 0) - (time.perf_counter() - started)
            total, judgements = fitting(budget, seconds, judging)
        total, judgements = self._fabric.broadcast((total, judgements))  # all processes try rates for as many steps
        if self._training.minutes is not None and total < LONG * self._feed.batches.per_epoch:
            self._resize(self._feed.batches.size, changes=False)
            self._good = cloned(self._state())
        self._facts["pace"] = pace_of(total)
        rate, spent, judged = self._probe(total)
        limit = None
        if self._training.minutes is not None:
            total = max(1, total - spent - int(judged * judging / seconds))
            limit = 60 * self._training.minutes - (time.perf_counter() - started)
        every = interval(total, judgements)
        self._facts |= {"rate": rate, "total": total, "every": every, "judgements": judgements, "limit": limit}
        size = self._feed.batches.size
        if self._training.rate is None and rate == min(RATES[self._training.optimizer]):
            self._say(f"{rate:g} is the lowest learning rate that is tried: there is little left to learn")
        self._say(f"learning rate {rate:g}, {total} steps of {size} samples; held out {loss:.4g}{self._with(metric)}")
        self._keep()

    def _timed(self) -> float:
        """Seconds of a step; where the minutes are too short for many, the batch is halved first."""
        training = self._training
        while True:
            seconds = []
            for step in range(TIMED):
                started = time.perf_counter()
                self._advance(step, LOW, 1.0, 1.0)
                seconds.append(time.perf_counter() - started)
            self._restore(self._good)
            size, found = self._feed.batches.size, self._fabric.broadcast(sorted(seconds)[TIMED // 2])
            few = training.minutes is not None and 60 * training.minutes < FEW * found
            least = max(WIDE if self._norms else LEAST, self._share.world)
            if not (training.shrinks and few and size // 2 >= least):
                return float(found)
            self._resize(size // 2)
            self._good = cloned(self._state())

    def _resize(self, size: int, changes: bool = True) -> None:
        """Samples a step, and whether they are changed at random."""
        self._facts |= {"size": size, "changes": changes}
        if size == self._feed.batches.size and (changes or not self._feed.changes):
            return
        batches = replace(self._feed.batches, size=size)
        self._feed = replace(self._feed, batches=batches, changes=self._feed.changes if changes else Changes())

    def _probe(self, total: int) -> tuple[float, int, int]:
        """The rate that a short training of its own brings furthest, and the steps and judgements that were spent.

        Each one ends as a training does, with a rate that falls to nothing: among trainings that are cut off, low rates
        look better than they are. The student stays where the best of them left it. With the best rate it is also tried
        whether scales of a quantization are better left alone.
        """
        if self._training.rate is not None:
            return self._training.rate, 0, 0
        steps = trial_steps(total)
        best: tuple[float, dict[str, Any]] = (self._facts["best"], self._good)

        def loss_of(rate: float) -> float:
            nonlocal best
            loss = self._trained(rate, steps)
            if loss < best[0]:
                best = (loss, cloned(self._state()))
            self._restore(self._good)
            return loss

        optimizer = self._training.optimizer
        pace, self._facts["pace"] = self._facts["pace"], pace_of(steps)
        rate, learned, tried = climb(RATES[optimizer], FIRST_RATE[optimizer], loss_of)
        if self._inner.scales and optimizer == "adamw":
            self._facts["pace"], tried = 0.0, tried + 1
            if loss_of(rate) < learned:
                pace = 0.0
                self._say("scales stay as they were calibrated: learning them brings nothing")
        self._restore(best[1])
        self._facts["pace"] = pace
        self._average = Average(self._inner.student, self._training.average)
        if best[0] < self._facts["best"]:
            self._facts |= {"best": best[0], "metric": self._metric()}
            self._best = cloned(self._average.values)
        return self._fabric.broadcast(rate), steps * tried, tried

    def _led(self, step: int, total: int) -> float:
        return lead(step, total) if self._inner.graduates else 1.0

    def _trained(self, rate: float, steps: int) -> float:
        """Loss on what is held out after a short training; infinite where it went astray."""
        for step in range(steps):
            if not self._advance(step, rate, schedule(step, steps), self._led(step, steps)):
                return math.inf
        loss = self._loss_held_out(average=False)
        return loss if math.isfinite(loss) else math.inf

    def _advance(self, step: int, rate: float, share: float, led: float) -> bool:
        """One step at a share of its rate; False where loss or gradient is not finite. Nothing has changed then."""
        set_rate(self._raw, rate * share, self._facts.get("pace", 0.0) * share)
        self._optimizer.zero_grad()
        examples = self._feed.training(step, self._share, led)
        parts = self._feed.batches.parts(step, self._share)
        summed = torch.zeros((), device=self._fabric.device)
        statistics = Step(self._inner.student, parts)
        for place, (example, part) in enumerate(zip(examples, parts, strict=True)):
            last = place == len(examples) - 1
            with self._fabric.no_backward_sync(self._learner, enabled=not last and self._share.world > 1):
                statistics.before(part)
                with by_batch(self._inner.student, part.width if self._norms else 0, part):
                    loss = self._learner(example.inputs, example.answers, example.labels, led)
                    loss = loss * (self._share.world * part.counted) / part.total  # processes are averaged
                statistics.behind(part)
                self._fabric.backward(loss)
            summed += loss.detach()
        norm = self._fabric.clip_gradients(
            self._learner, self._optimizer, max_norm=self._training.clip, error_if_nonfinite=False
        )
        value = float(torch.as_tensor(self._fabric.all_reduce(summed, reduce_op="mean")))
        finite = norm is None or bool(torch.isfinite(torch.as_tensor(norm)))
        if not (finite and math.isfinite(value)) and not self._may_skip(value):
            return False
        self._facts["skipped"] = 0 if finite else self._facts["skipped"] + 1
        self._facts["loss"] = value
        self._optimizer.step()
        return True

    def _may_skip(self, loss: float) -> bool:
        """Whether it is the scaler of float16 that meets gradients too large for it: it leaves such a step out."""
        scaled = getattr(self._fabric.strategy.precision, "scaler", None) is not None
        skips = scaled and math.isfinite(loss) and self._facts["skipped"] < SKIPPED
        if scaled and not skips:
            self._optimizer.step()  # left out; the scaler starts anew
        return skips

    def _judge(self) -> bool:
        """Measure the averaged student on what is held out and keep the best; False where it is not finite."""
        loss = self._loss_held_out()
        if not math.isfinite(loss):
            return False
        facts = self._facts
        with self._average.in_place():
            metric = self._metric()
        better = loss < facts["best"]
        facts["quiet"] = 0 if better else facts["quiet"] + 1
        if better:
            facts |= {"best": loss, "best_step": facts["step"], "metric": metric}
            self._best = cloned(self._average.values)
        self._say(f"loss {facts['loss']:.4g}, held out {loss:.4g}{self._with(metric)}")
        return True

    @torch.no_grad()
    def _loss_held_out(self, average: bool = True) -> float:
        """The loss of the outputs on the samples that are held out; all processes compute it, the first one counts."""
        if average:
            with self._average.in_place():
                return self._loss_held_out(average=False)
        summed, count = 0.0, 0
        for example in self._feed.judged():
            with self._feed.autocast():
                loss = self._inner(example.inputs, example.answers, example.labels, judged=True)
            summed, count = summed + float(loss) * example.count, count + example.count
        return float(self._fabric.broadcast(summed / max(1, count)))

    def _go_back(self) -> None:
        """To the last state that was good, with half the rate."""
        self._restore(self._good)
        self._facts["rollbacks"] += 1
        self._facts["scale"] *= 0.5
        self._good["facts"] |= {name: self._facts[name] for name in ("rollbacks", "scale")}
        self._say(f"not finite: back to step {self._facts['step']} at {self._facts['scale']:g} of the rate")
        if self._facts["rollbacks"] > ROLLBACKS:
            raise RecoverError(
                f"the training diverges: loss or gradients were not finite {self._facts['rollbacks']} times, at rates "
                f"down to {self._facts['rate'] * self._facts['scale']:.2g}; nothing was written",
                where="recover",
                hint="give a lower rate (--lr 1e-5), precision 32, or look for samples that the model answers with NaN",
            )

    def _keep(self) -> None:
        """Note the state, in memory and on disk."""
        self._good = cloned(self._state())
        if self._share.rank == 0:
            save(self._good, self._folder / STATE)
        self._fabric.barrier()

    def _state(self) -> dict[str, Any]:
        return {
            "facts": dict(self._facts),
            "learner": self._inner.state_dict(),
            "average": self._average.values,
            "best": self._best,
            "optimizer": self._raw.state_dict(),
            "precision": self._fabric.strategy.precision.state_dict(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        state = cloned(state)
        self._facts = {**self._facts, **state["facts"]}
        self._resize(self._facts["size"], self._facts["changes"])
        self._inner.load_state_dict(state["learner"])
        self._average.values = _moved(state["average"], self._fabric.device)
        self._best = _moved(state["best"], self._fabric.device)
        self._raw.load_state_dict(state["optimizer"])
        self._fabric.strategy.precision.load_state_dict(state["precision"])
        self._good = self._good or cloned(self._state())

    def _finish(self) -> Outcome:
        """Leave the student with the weights that were best."""
        self._average.load(self._best)
        facts = self._facts
        return Outcome(
            steps=facts["step"],
            best_step=facts["best_step"],
            rate=facts["rate"],
            before=facts["before"],
            after=facts["best"],
            metric_before=facts["metric_before"],
            metric=facts["metric"],
            rollbacks=facts["rollbacks"],
            by_labels=self._inner.graduates,
        )

    def _with(self, metric: float | None) -> str:
        return "" if metric is None else f", {self._metric_name} {metric:.4f}"

    def _say(self, what: str) -> None:
        if self._share.rank == 0:
            self._told(what, self._facts["step"], self._facts.get("total"))


def _moved(values: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) for name, value in values.items()}
