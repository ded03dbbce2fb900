"""What goes into a block of the student, and what has to come out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .batches import Rows
from .blocks import Task
from .job import Job, Subjects
from .taps import tapped

SAMPLES = 512
"""Samples that blocks are fitted to, at the most,"""

BYTES = 1 << 30
"""and bytes of the tensors at both ends of a block."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What goes into a block and what has to come out, for samples that share a batch."""

    given: Mapping[str, Tensor]
    wanted: Tensor


def training_runs(job: Job, subjects: Subjects, task: Task) -> list[Run]:
    """What a block is fitted to."""
    batches = job.batches
    return _runs(job, subjects, task, _some([rows for step in range(batches.per_epoch) for rows in batches.at(step)]))


def judged_runs(job: Job, subjects: Subjects, task: Task) -> list[Run]:
    """What a block is judged on."""
    return _runs(job, subjects, task, _some(list(job.batches.judged())))


def _some(rows: list[Rows]) -> list[Rows]:
    """The first runs of as many samples as blocks are fitted to."""
    counts = np.cumsum([len(run[1]) for run in rows])
    return rows[: max(1, int(np.searchsorted(counts, SAMPLES, "right")))]


@torch.no_grad()
def _runs(job: Job, subjects: Subjects, task: Task, rows: Sequence[Rows]) -> list[Run]:
    """What the student as it is gives to the block, and what the teacher has at its end."""
    pair = subjects.pair
    inputs = {spec.name for spec in job.pool.inputs}
    inner = [name for name in task.part.reads if name not in inputs]
    student = tapped(pair.student, pair.outputs, inner) if inner else None
    teacher = tapped(pair.teacher, pair.outputs, (task.name,))
    found: list[Run] = []
    size = 0
    for group, some in rows:
        read = job.pool.read(group, some)
        arrays = {name: torch.from_numpy(array).to(task.weights[0].device) for name, array in read.items()}
        given = [arrays[spec.name] for spec in job.pool.inputs]
        values = {**arrays, **(student(*given) if student else {})}
        run = Run({name: values[name] for name in task.part.reads}, teacher(*given)[task.name].float())
        size += run.wanted.nbytes + sum(value.nbytes for value in run.given.values())
        if found and size > BYTES:
            break
        found.append(run)
    return found
