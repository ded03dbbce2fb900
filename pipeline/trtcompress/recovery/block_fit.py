"""One block of a student, fitted to the teacher's tensor at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

from .block_samples import Run, judged_runs, training_runs
from .blocks import Task
from .job import Job, Subjects
from .losses.answers import spread
from .midway import Midway
from .optimizer import by_ratios, pace_of, paced, schedule, set_rate

RATES = (3e-3, 5e-4)
"""Learning rates that are tried on each block."""


def fit_block(
    job: Job, subjects: Subjects, task: Task, steps: int, limit: float, midway: Midway
) -> tuple[float, float]:
    """Fit a block; it is left as it was where nothing brings its end nearer to the teacher's.

    Args:
        job: the training.
        subjects: student, as the blocks before left it, and teacher.
        task: the block.
        steps: at each rate.
        limit: seconds that it may take, as far as steps need them.
        midway: its checkpoints.

    Returns:
        The squared error on what is held out over the variance, before and after.
    """
    started = time.monotonic()
    runs, judged = training_runs(job, subjects, task), judged_runs(job, subjects, task)
    scale = spread(torch.cat([run.wanted.flatten() for run in runs]))
    with torch.no_grad():
        task.bridge.fit(task.part(runs[0].given), runs[0].wanted)
    start = _values(task)
    before = _error(task, judged, scale)
    found = midway.found()
    best, kept = found.get("best", before), found.get("kept", start)
    limit -= time.monotonic() - started
    for rate in RATES[RATES.index(found.get("rate", RATES[0])) :]:
        _restore(task, start)
        midway.begin(rate, best=best, kept=kept)
        _descend(task, runs, scale, rate, steps, limit / len(RATES), job.training.seed, midway)
        error = _error(task, judged, scale)
        if error < best:
            best, kept = error, _values(task)
    _restore(task, kept)
    return before, best


def _descend(
    task: Task,
    runs: Sequence[Run],
    scale: Tensor,
    rate: float,
    steps: int,
    limit: float,
    seed: int,
    midway: Midway,
) -> None:
    """Adam on the squared error over the variance, until the steps or the seconds are used up; goes on after a kill."""
    fitted = task.fitted
    groups: list[dict[str, Any]] = [{"params": [*task.weights, *task.bridge.parameters()]}]
    if task.scales:
        groups.append(paced(task.scales))
    optimizer = Adam(groups, foreach=False)
    if task.scales:
        by_ratios(optimizer, task.scales)
    found = midway.found(rate)
    if found:
        _restore(task, found["values"])
        optimizer.load_state_dict(found["optimizer"])
    started, first = time.monotonic() - found.get("spent", 0.0), found.get("step", 0)
    places = np.random.default_rng(seed).integers(len(runs), size=steps)
    for step in range(first, steps):
        if midway.is_due():
            state = optimizer.state_dict()
            midway.keep(values=_values(task), optimizer=state, step=step, spent=time.monotonic() - started)
        if time.monotonic() - started > limit:
            return
        run = runs[int(places[step])]
        share = schedule(step, steps)
        set_rate(optimizer, rate * share, pace_of(steps) * share)
        optimizer.zero_grad()
        loss = (task.bridge(task.part(run.given)) - run.wanted).square().mean() / scale
        loss.backward()
        nn.utils.clip_grad_norm_(fitted, 1.0)
        if not bool(torch.isfinite(loss)):
            return
        optimizer.step()


@torch.no_grad()
def _error(task: Task, runs: Sequence[Run], scale: Tensor) -> float:
    errors = [float((task.bridge(task.part(run.given)) - run.wanted).square().mean() / scale) for run in runs]
    return float(np.mean(errors))


def _values(task: Task) -> list[Tensor]:
    return [p.detach().clone() for p in task.fitted]


@torch.no_grad()
def _restore(task: Task, values: Sequence[Tensor]) -> None:
    for parameter, value in zip(task.fitted, values, strict=True):
        parameter.copy_(value)
