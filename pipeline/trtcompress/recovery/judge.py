"""How good a student is while it is trained: its averaged weights, on the samples that are held out."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .checkpoint import cloned
from .feed import Feed
from .learner import Learner
from .state import State

Metric = Callable[[], float | None]

FAR = 100.0
"""So many times the loss at the start, and also that of a student that knows nothing (1, see `Term`), is a
divergence."""


def diverged(loss: float, before: float) -> bool:
    """Whether a loss on what is held out is not finite, or far above the one before any training."""
    return not loss <= FAR * max(before, 1.0)


def shown(loss: float) -> float:
    """A loss as it is told: rounding leaves a divergence that is next to nothing a little below 0."""
    return max(0.0, loss)


@torch.no_grad()
def held_out_loss(learner: Learner, feed: Feed) -> float:
    """The loss of the outputs on the samples that are held out, of the weights that the student has."""
    summed, count = 0.0, 0
    weights = feed.batches.label_weights(list(feed.batches.judged()))
    for example, weight in zip(feed.judged(), weights, strict=True):
        with feed.autocast():
            loss = learner(example.inputs, example.answers, example.labels, labelled=weight, judged=True)
        summed, count = summed + float(loss) * example.count, count + example.count
    return summed / max(1, count)


class Judge:
    """Judges a student, and keeps the best one.

    Args:
        state: holds the student.
        metric: measures it as it is; None where there is no metric.
        metric_name: its name, for the progress.
    """

    def __init__(self, state: State, metric: Metric, metric_name: str) -> None:
        self.state, self.metric, self._name = state, metric, metric_name

    @torch.no_grad()
    def loss(self, average: bool = True) -> float:
        """The loss of the outputs on the samples that are held out; all processes compute it, the first one counts.

        Args:
            average: of the averaged weights, not of those of the last step.
        """
        state = self.state
        if average:
            with state.average.in_place():
                return self.loss(average=False)
        return float(state.fabric.broadcast(held_out_loss(state.inner, state.feed)))

    def judge(self) -> str | None:
        """Note how good it is and whether it is the best; the words that tell it, None where it diverged."""
        loss, facts = self.loss(), self.state.facts
        if diverged(loss, facts["before"]):
            return None
        with self.state.average.in_place():
            metric = self.metric()
        # High rates disturb a student that is nearly right, which gets better only when they fall
        high = facts["step"] <= facts["total"] / 2
        facts["quiet"] = 0 if high or loss < facts["lowest"] else facts["quiet"] + 1
        facts["lowest"] = loss if high else min(loss, facts["lowest"])
        if loss < facts["best"]:
            facts |= {"best": loss, "best_step": facts["step"], "metric": metric}
            self.state.best = cloned(self.state.average.values)
        return f"loss {shown(facts['loss']):.4g}, {self.told(loss, metric)}"

    def told(self, loss: float, metric: float | None) -> str:
        """What was measured on the samples that are held out, in words."""
        measured = "" if metric is None else f", {self._name} {metric:.4f}"
        return f"held out {shown(loss):.4g}{measured}"
