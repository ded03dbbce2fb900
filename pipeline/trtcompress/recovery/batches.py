"""Which samples a step takes: a function of the seed and the number of the step, so that a resume goes on there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np

from .pool import Ints, Pool

LEAST_HELD = 16
"""Samples that are held out at the least, where there are enough."""

MOST_HELD = 2048
"""Samples that are held out at the most: more would only take time."""

FEW_RUNS = 16
"""Runs that are looked at before the training at the most, of samples that cannot share one."""

WIDE = 16
"""Samples of a batch from which its statistics tell enough."""

Rows = tuple[int, Ints]
"""Samples of one group by their rows in it."""


@dataclass(frozen=True, slots=True)
class Share:
    """One of several processes that share each batch."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True, slots=True)
class Part:
    """What one pass of a process is of its step.

    Attributes:
        counted: samples that it adds to the step; 0: of so few none was left for this process, which only takes part.
        total: samples of the step, in all processes.
        width: samples that go through the network together: of the step, or of this pass where it is `alone`.
        alone: the others run batches of their own, since samples cannot share one of any size.
        labels: weight of what labels say beside that of the samples: by how many of them count, of those of the step.
        passes, later: how many wide batches of its own the step has, and how many are behind this one.
    """

    counted: int
    total: int
    width: int
    alone: bool
    passes: int = 0
    later: int = 0
    labels: float = 1.0


def held_out(total: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of `total` samples are held out: every eighth, 2,048 at most; of few up to a fourth, of a handful none."""
    held = np.zeros(total, bool)
    if total < LEAST_HELD:
        return held
    count = min(max(min(LEAST_HELD, total // 4), total // 8), MOST_HELD)
    held[np.linspace(0, total - 1, count).round().astype(int)] = True  # from all over: data is often sorted
    return held


@dataclass(frozen=True)
class Batches:
    """The batches of a training.

    Attributes:
        size: samples of a step, in all processes together.
        seed: of the order.
        counting: how many labels of each sample count, in the order of the data; None: as many of each.
        together: samples that are judged together, which some losses depend on; 0: as many as a step takes.
    """

    pool: Pool
    size: int
    seed: int
    counting: Ints | None = field(default=None, compare=False, repr=False)
    together: int = 0
    _latest: dict[int, list[Rows]] = field(init=False, default_factory=dict, compare=False, repr=False)

    @cached_property
    def held(self) -> list[Ints]:
        """Rows of each group that are held out."""
        held = held_out(self.pool.total)
        return [np.flatnonzero(held[group.places]) for group in self.pool.groups]

    @cached_property
    def training(self) -> list[Ints]:
        """Rows of each group that are trained on."""
        return [np.setdiff1d(np.arange(len(g.places)), h) for g, h in zip(self.pool.groups, self.held, strict=True)]

    @property
    def holds_out(self) -> bool:
        """Whether there are samples that the training does not see."""
        return any(rows.size for rows in self.held)

    @cached_property
    def per_epoch(self) -> int:
        """Steps in which every sample comes up once."""
        return sum(-(-len(rows) // self.size) for rows in self.training)

    def at(self, step: int, share: Share = Share()) -> list[Rows]:
        """What a process runs in a step: one batch, or several where samples cannot share one."""
        return [rows for rows, _ in self.passes(step, share)]

    def passes(self, step: int, share: Share) -> list[tuple[Rows, Part]]:
        """What a process runs in a step, each pass with what it is of the step.

        Processes share the samples of a step, or else the batches that one process would run.
        """
        number, place = divmod(step, self.per_epoch)
        group, rows = self._epoch(number)[place]
        total = len(rows)
        if self.is_open(group):
            shares = [(group, rows[rank :: share.world]) for rank in range(share.world)]
            mine, weight = shares[share.rank][1], self.label_weights(shares)[share.rank]
            part = Part(len(mine), total, total, alone=False, labels=weight)
            return [((group, mine if mine.size else rows[:1]), part)]  # every process has to take part in every step
        runs = list(self._runs(group, rows))
        weights = self.label_weights(runs)
        wide = [len(run) >= WIDE for _, run in runs]
        found = [
            (run, Part(len(run[1]), total, len(run[1]), True, sum(wide), sum(wide[place + 1 :]), weights[place]))
            for place, run in enumerate(runs)
        ][share.rank :: share.world]
        return found or [(runs[0], Part(0, total, len(runs[0][1]), True, sum(wide)))]

    def label_weights(self, runs: Sequence[Rows]) -> list[float]:
        """Weight of the labels of each of several passes, beside its share of the samples of all.

        With both a mean over the labels of each pass becomes one over all that count.
        """
        if self.counting is None:
            return [1.0] * len(runs)
        counts = [int(self.counting[self.pool.groups[group].places[rows]].sum()) for group, rows in runs]
        samples = sum(len(rows) for _, rows in runs)
        counted = max(1, sum(counts))
        return [count * samples / (counted * max(1, len(rows))) for count, (_, rows) in zip(counts, runs, strict=True)]

    def judged(self) -> Iterator[Rows]:
        """What a student is judged on: the samples that are held out, of a handful all."""
        for group, rows in enumerate(self.held if self.holds_out else self.training):
            size = self.together or self.size
            for start in range(0, len(rows), size):
                yield from self._runs(group, rows[start : start + size])

    def first(self, count: int) -> list[Rows]:
        """Samples to look at before the training, of the group with most, in runs of no more than a step takes.

        Of samples that cannot share a run of any size no more than `FEW_RUNS` runs are looked at.
        """
        group = max(range(len(self.training)), key=lambda i: len(self.training[i]))
        rows = self.training[group]
        some = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
        if self.is_open(group):
            return [(group, some[start : start + self.size]) for start in range(0, len(some), self.size)]
        return list(islice(self._runs(group, some), FEW_RUNS))

    def is_open(self, group: int) -> bool:
        """Whether samples share a batch of any size, which processes share out among themselves."""
        return self.pool.groups[group].stacks and self.pool.fixed is None

    def _epoch(self, number: int) -> list[Rows]:
        """All batches of an epoch, shuffled; those of the latest one are kept."""
        found = self._latest.get(number)
        if found is None:
            found = self._shuffled(number)
            self._latest.clear()
            self._latest[number] = found
        return found

    def _shuffled(self, number: int) -> list[Rows]:
        chance = np.random.default_rng([self.seed, number])
        found: list[Rows] = []
        for group, rows in enumerate(self.training):
            shuffled = chance.permutation(rows)
            found += [(group, shuffled[start : start + self.size]) for start in range(0, len(rows), self.size)]
        return [found[place] for place in chance.permutation(len(found))]

    def _runs(self, group: int, rows: Ints) -> Iterator[Rows]:
        size = len(rows) if self.is_open(group) else (self.pool.fixed or 1) if self.pool.groups[group].stacks else 1
        for start in range(0, len(rows), max(1, size)):
            yield group, rows[start : start + size]
