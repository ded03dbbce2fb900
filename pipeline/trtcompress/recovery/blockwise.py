"""Block by block first: each part of the student is fitted to the teacher's tensor at its end (arXiv 2102.05426).

A block reads what the student itself makes before it, so that it makes good the errors of the blocks before. It is left
as it was where that does not bring its end nearer to the teacher's on samples that are held out; all are where together
they make the loss of the outputs on these samples higher.

All blocks together cost as many steps as a training of up to 200 has, of a longer one 200 or half of its steps, 800 at
the most; of minutes they take a fourth at the most. A step of all blocks costs one of the student, without its teacher.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

from trtcompress_graph.load import load_ir

from .block_fit import RATES, fit_block
from .blocks import tasks_of
from .checkpoint import load, save
from .devices import first_device, given_back, repeatable
from .job import BLOCKS, Job, open_subjects, placed, weights_before_blocks, weights_of
from .loop import Told
from .midway import Midway
from .pace import about
from .settings import planned_steps
from .standing import Examiner, Fitted

STEPS = (100, 400)
"""Of a block at each rate, at the least and at the most."""

BLOCK = "block.pt"
"""Of the block that is being fitted."""

SHARE = 0.25
"""Of the minutes of a recovery that the blocks take together."""


def fit_blocks(job: Job, told: Told, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Fitted:
    """Fit every block of the student in turn and leave the weights in `BLOCKS`; goes on after a kill.

    Args:
        job: the training.
        told: of the progress.
        autocast: the context in which a student is judged.

    Raises:
        ModelError, OperatorError: see `open_subjects`.
    """
    found = load(job.folder / BLOCKS) or {"done": 0, "seconds": 0.0, "ended": False}
    if found["ended"]:
        return Fitted.of(found)
    with given_back(), repeatable(job.training.seed):
        started = time.monotonic()
        subjects = open_subjects(job)
        tasks = tasks_of(placed(subjects.pair, first_device()))
        examined = Examiner(job, subjects, first_device(), autocast)
        if "came" not in found:
            found |= {"came": asdict(examined()) if tasks else None, "seconds": time.monotonic() - started}
        layers = {value.name: node.name for node in load_ir(job.student).graph for value in node.outputs}
        steps = _steps(job)
        budget = math.inf if job.training.minutes is None else 60 * SHARE * job.training.minutes
        for number, task in enumerate(tasks):
            if number < found["done"]:
                continue
            left = budget - found["seconds"]
            if left <= 0:
                unfitted = len(tasks) - number
                told(f"no time for the last {f'{unfitted} blocks' if unfitted > 1 else 'block'}", number, len(tasks))
                break
            most = len(RATES) * steps
            told(f"fitting block {number + 1} of {len(tasks)}, {most} steps at the most", number, len(tasks))
            midway = Midway(job.folder / BLOCK, number)
            before, after = fit_block(job, subjects, task, steps, left / (len(tasks) - number), midway)
            told(
                f"block up to {layers.get(task.name) or task.name}: error {before:.3g} to {after:.3g}",
                number + 1,
                len(tasks),
            )
            seconds, weights = found["seconds"] + midway.seconds, weights_of(subjects.pair.student)
            found |= {"done": number + 1, "seconds": seconds, "weights": weights}
            save(found, job.folder / BLOCKS)
            midway.forget()
            if number == 0 and len(tasks) > 1:
                others = min((len(tasks) - 1) * found["seconds"], budget - found["seconds"])
                told(f"the other blocks take about {about(others)}", 1, len(tasks))
        started = time.monotonic()
        found |= {"ended": True, "weights": weights_of(subjects.pair.student)}
        if found["came"] and not examined.loss() <= found["came"]["loss"]:  # also where it is NaN
            told(
                "fitted blocks together made the student worse: it begins as it was before them", len(tasks), len(tasks)
            )
            found["weights"] = weights_before_blocks(job)
        found["seconds"] += time.monotonic() - started
        save(found, job.folder / BLOCKS)
    return Fitted.of(found)


def _steps(job: Job) -> int:
    """Steps of a block at each rate: a training that was asked to be short is not made long by its blocks."""
    total = planned_steps(job.training, job.batches.per_epoch) or 4 * STEPS[1]
    return max(1, min(STEPS[1], max(total // 4, min(STEPS[0], total // len(RATES)))))
