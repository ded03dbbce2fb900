"""Block by block first: each part of the student is fitted to the teacher's tensor at its end (arXiv 2102.05426).

A block reads what the student itself makes before it, so that it makes good the errors of the blocks before. It is left
as it was where that does not bring its end nearer to the teacher's on samples that are held out.

All blocks together cost as many steps as a training of up to 200 has, of a longer one 200 or half of its steps, 800 at
the most; of minutes they take a fourth at the most. A step of all blocks costs one of the student, without its teacher.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.optim import Adam

from trtcompress_graph.load import load_ir
from trtcompress_graph.torch_view import learned_scales

from .checkpoint import load, save
from .devices import first_device, given_back, repeatable
from .job import BLOCKS, Job, Subjects, open_subjects, placed, weights_of
from .loop import Told
from .losses.answers import spread
from .losses.features import Bridge
from .midway import Midway
from .optimizer import by_ratios, pace_of, paced, schedule, set_rate
from .pairs import Pair, Shared
from .settings import planned_steps
from .taps import Block, block, named_nodes, output_nodes, tapped

MOST = 16
"""Blocks, at the most."""

SAMPLES = 512
"""Samples that blocks are fitted to, at the most,"""

BYTES = 1 << 30
"""and bytes of the tensors at both ends of a block."""

STEPS = (100, 400)
"""Of a block at each rate, at the least and at the most."""

BLOCK = "block.pt"
"""Of the block that is being fitted."""

RATES = (3e-3, 5e-4)
"""Learning rates that are tried on each block."""

SHARE = 0.25
"""Of the minutes of a recovery that the blocks take together."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What goes into a block and what has to come out, for samples that share a batch."""

    given: Mapping[str, Tensor]
    wanted: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A block to fit.

    Attributes:
        name: of the tensor at its end.
        part: computes it.
        bridge: brings it to the teacher's width.
        weights: that are fitted; those of blocks before are left alone.
        scales: of the quantization that are fitted, where they are learned.
    """

    name: str
    part: Block
    bridge: Bridge
    weights: tuple[nn.Parameter, ...]
    scales: tuple[nn.Parameter, ...] = ()

    @property
    def fitted(self) -> tuple[nn.Parameter, ...]:
        """All that changes."""
        return (*self.weights, *self.scales, *self.bridge.parameters())


def fit_blocks(job: Job, told: Told) -> float:
    """Fit every block of the student in turn and leave the weights in `BLOCKS`; goes on after a kill.

    Returns:
        Seconds that it took, those before a kill included.

    Raises:
        ModelError, OperatorError: see `open_subjects`.
    """
    found = load(job.folder / BLOCKS) or {"done": 0, "seconds": 0.0, "ended": False}
    if found["ended"]:
        return float(found["seconds"])
    with given_back(), repeatable(job.training.seed):
        subjects = open_subjects(job)
        tasks = _tasks(placed(subjects.pair, first_device()))
        layers = {value.name: node.name for node in load_ir(job.student).graph for value in node.outputs}
        budget = math.inf if job.training.minutes is None else 60 * SHARE * job.training.minutes
        for number, task in enumerate(tasks):
            if number < found["done"]:
                continue
            left = budget - found["seconds"]
            if left <= 0:
                told(f"no time for the last {len(tasks) - number} blocks", number, len(tasks))
                break
            most = len(RATES) * _steps(job)
            told(f"fitting block {number + 1} of {len(tasks)}, {most} steps at the most", number, len(tasks))
            midway = Midway(job.folder / BLOCK, number)
            before, after = _fit(job, subjects, task, left / (len(tasks) - number), midway)
            told(
                f"block up to {layers.get(task.name) or task.name}: error {before:.3g} to {after:.3g}",
                number + 1,
                len(tasks),
            )
            found = {
                "done": number + 1,
                "seconds": found["seconds"] + midway.seconds,
                "ended": False,
                "weights": weights_of(subjects.pair.student),
            }
            save(found, job.folder / BLOCKS)
            midway.forget()
    weights = found.get("weights", weights_of(subjects.pair.student))
    save({**found, "ended": True, "weights": weights}, job.folder / BLOCKS)
    return float(found["seconds"])


def _tasks(pair: Pair) -> list[Task]:
    """The blocks between the tensors that both share, and the one up to the first output; none where it is alone."""
    nodes, outputs = named_nodes(pair.student), output_nodes(pair.student)
    ends: list[tuple[str, fx.Node, Shared]] = [(s.name, nodes[s.name], s) for s in pair.milestones(MOST - 1)]
    if not ends:
        return []
    first = pair.answers[0]
    shape = tuple(pair.first.student[first].shape)
    held = outputs[pair.outputs.index(first)]
    ends.append((first, held, Shared(first, "", False, shape, shape)))
    tasks: list[Task] = []
    starts: list[str] = []
    apart = {id(scale) for scale in learned_scales(pair.student)}
    taken: set[int] = set()
    for name, node, shared in ends:
        part = block(pair.student, starts, node)
        own = [p for p in part.parameters() if p.requires_grad and id(p) not in taken]
        weights = tuple(p for p in own if id(p) not in apart)
        if weights:
            scales = tuple(p for p in own if id(p) in apart)
            tasks.append(Task(name, part, Bridge(shared).to(weights[0].device), weights, scales))
            taken.update(map(id, own))
        starts.append(name)
    return tasks


def _steps(job: Job) -> int:
    """Steps of a block at each rate: a training that was asked to be short is not made long by its blocks."""
    total = planned_steps(job.training, job.batches.per_epoch) or 4 * STEPS[1]
    return max(1, min(STEPS[1], max(total // 4, min(STEPS[0], total // len(RATES)))))


def _fit(job: Job, subjects: Subjects, task: Task, limit: float, midway: Midway) -> tuple[float, float]:
    """Fit one block within `limit` seconds, as far as it has them; the error on what is held out, before and after."""
    started = time.monotonic()
    rows = _some(job, [row for step in range(job.batches.per_epoch) for row in job.batches.at(step)])
    held = _some(job, list(job.batches.judged()))
    runs, judged = (_runs(job, subjects, task, some) for some in (rows, held))
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
        _descend(task, runs, scale, rate, _steps(job), limit / len(RATES), job.training.seed, midway)
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


def _some(job: Job, rows: list[Any]) -> list[Any]:
    """The first runs of as many samples as blocks are fitted to."""
    counts = np.cumsum([len(run[1]) for run in rows])
    return rows[: max(1, int(np.searchsorted(counts, SAMPLES, "right")))]


@torch.no_grad()
def _runs(job: Job, subjects: Subjects, task: Task, rows: Sequence[Any]) -> list[Run]:
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
