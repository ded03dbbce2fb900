"""Everything of a training that changes, as it is kept in memory and on disk."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from .augment import Changes
from .batches import Share
from .checkpoint import cloned, load, save_in_first
from .feed import Feed
from .learner import Learner
from .optimizer import Average, make_optimizer
from .settings import Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STATE = "state.pt"


class State:
    """A learner under training; a checkpoint holds all of it but samples and settings.

    Args:
        fabric: devices and precision.
        learner: student and losses, not yet set up.
        feed: examples.
        training: how long and how.
        folder: of the checkpoints.

    Attributes:
        learner, optimizer: as Fabric runs them; `inner` and `raw` are what they wrap.
        share: of this process in each step.
        average: of the weights, by which the student is judged.
        best: the average that was best.
        facts: numbers, such as the step.
        good: the last state that was good.
    """

    def __init__(self, fabric: Fabric, learner: Learner, feed: Feed, training: Training, folder: Path) -> None:
        self.fabric, self.feed, self.training = fabric, feed, training
        self._file = folder / STATE
        self.share = Share(fabric.global_rank, fabric.world_size)
        self.inner = learner
        self.raw: Optimizer = make_optimizer(learner.student, learner.terms, training, learner.scales)
        self.learner, self.optimizer = fabric.setup(learner, self.raw)
        self.average = Average(learner.student, training.average)
        self.best = cloned(self.average.values)
        self.facts: dict[str, Any] = dict.fromkeys(("step", "rollbacks", "skipped", "quiet", "best_step"), 0)
        self.facts |= {"scale": 1.0, "lowest": math.inf, "size": feed.batches.size, "changes": True, "spent": 0.0}
        self.good: dict[str, Any] = {}

    def values(self) -> dict[str, Any]:
        """What a checkpoint holds; tensors are those that go on changing."""
        return {
            "facts": dict(self.facts),
            "learner": self.inner.state_dict(),
            "average": self.average.values,
            "best": self.best,
            "optimizer": self.raw.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }

    def note(self) -> None:
        """Take this state for the last one that was good."""
        self.good = cloned(self.values())

    def keep(self) -> None:
        """Note this state, and write it to disk."""
        self.note()
        save_in_first(self.fabric, self.good, self._file)

    def kept(self) -> dict[str, Any] | None:
        """What a training that was killed left on disk; None where it left nothing."""
        return load(self._file)

    def restore(self, values: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        values = cloned(values)
        self.facts = {**self.facts, **values["facts"]}
        self.resize(self.facts["size"], self.facts["changes"])
        self.inner.load_state_dict(values["learner"])
        self.average.values = _moved(values["average"], self.fabric.device)
        self.best = _moved(values["best"], self.fabric.device)
        self.raw.load_state_dict(values["optimizer"])
        self.fabric.strategy.precision.load_state_dict(values["precision"])
        self.good = self.good or cloned(self.values())

    def resize(self, size: int, changes: bool = True) -> None:
        """Set how many samples a step takes, and whether they are changed at random; they are judged as before."""
        self.facts |= {"size": size, "changes": changes}
        if size == self.feed.batches.size and (changes or not self.feed.changes):
            return
        held = self.feed.batches
        batches = replace(held, size=size, together=held.together or held.size)
        self.feed = replace(self.feed, batches=batches, changes=self.feed.changes if changes else Changes())


def _moved(values: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) for name, value in values.items()}
