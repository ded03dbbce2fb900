"""One step of a training: the passes of a process, gradients over all processes, and the optimizer."""

from __future__ import annotations

import math

import torch

from .across import Step
from .leading import lead
from .norms import by_batch
from .optimizer import set_rate
from .state import State

SKIPPED = 20
"""Steps in a row that the scaler of float16 gradients may leave out while it looks for its scale."""


class Stepper:
    """Makes steps.

    Args:
        state: that moves on.
        norms: BatchNorm takes the statistics of each batch, and moves its running ones.
    """

    def __init__(self, state: State, *, norms: bool) -> None:
        self.state, self.norms = state, norms

    def led(self, step: int, total: int) -> float:
        """Weight of the teacher in one of so many steps."""
        return lead(step, total) if self.state.inner.graduates else 1.0

    def advance(self, step: int, rate: float, share: float, led: float) -> bool:
        """One step at a share of its rate; False where loss or gradient is not finite. Nothing has changed then."""
        state = self.state
        fabric, facts = state.fabric, state.facts
        set_rate(state.raw, rate * share, facts.get("pace", 0.0) * share)
        state.optimizer.zero_grad()
        passes = state.feed.passes(step, state.share, led)
        summed = torch.zeros((), device=fabric.device)
        statistics = Step(state.inner.student, [part for _, part in passes])
        for place, (example, part) in enumerate(passes):
            last = place == len(passes) - 1
            with fabric.no_backward_sync(state.learner, enabled=not last and state.share.world > 1):
                statistics.before(part)
                with by_batch(state.inner.student, part.width if self.norms else 0, part):
                    loss = state.learner(example.inputs, example.answers, example.labels, led, part.labels)
                    loss = loss * (state.share.world * part.counted) / part.total  # processes are averaged
                statistics.behind(part)
                fabric.backward(loss)
            summed += loss.detach()
        norm = fabric.clip_gradients(
            state.learner, state.optimizer, max_norm=state.training.clip, error_if_nonfinite=False
        )
        value = float(torch.as_tensor(fabric.all_reduce(summed, reduce_op="mean")))
        finite = norm is None or bool(torch.isfinite(torch.as_tensor(norm)))
        if not (finite and math.isfinite(value)) and not self._may_skip(value):
            return False
        facts["skipped"] = 0 if finite else facts["skipped"] + 1
        facts["loss"] = value
        state.optimizer.step()
        return True

    def _may_skip(self, loss: float) -> bool:
        """Whether it is the scaler of float16 that meets gradients too large for it: it leaves such a step out."""
        state = self.state
        scaled = getattr(state.fabric.strategy.precision, "scaler", None) is not None
        skips = scaled and math.isfinite(loss) and state.facts["skipped"] < SKIPPED
        if scaled and not skips:
            state.optimizer.step()  # left out; the scaler starts anew
        return skips
