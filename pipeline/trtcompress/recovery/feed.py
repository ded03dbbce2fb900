"""Batches as a training takes them: on the device, changed at random, with the teacher's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .ahead import Ahead
from .augment import Changes, InputKind, Inputs, changed, kind_of_input, mirrored, mixable, shifted, sizes
from .batches import Batches, Part, Rows, Share
from .losses.answers import spread

LOOKED_AT = 64
"""Samples on which it is seen what the teacher answers alike to."""

KEPT = 1 << 28
"""Bytes of the teacher's answers to what is held out that are kept from one judgement to the next."""

ALIKE = 0.2
"""Squared error over variance, up to which a changed sample is still one of the same kind."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """What one pass of the student takes.

    Attributes:
        inputs: in the order of the model.
        answers: the teacher's, by name.
        labels: as far as there are; of samples that were mixed none.
        count: samples that are real.
    """

    inputs: tuple[Tensor, ...]
    answers: Mapping[str, Tensor]
    labels: Tensor | None
    count: int


Read = tuple[Rows, dict[str, Tensor]]
"""Samples, and what they hold by the name of the input."""


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """Where examples come from.

    Attributes:
        teacher: gives its answers as a dict.
        autocast: the context in which models run.
        whole: answers and labels of a fixed batch that was filled up with copies keep those; else they end with the
            samples.
        judges: tensors that judgements read; the teacher's are computed once, as far as `KEPT` bytes go.
    """

    batches: Batches
    teacher: nn.Module
    device: torch.device
    changes: Changes
    kinds: Mapping[str, InputKind]
    autocast: Callable[[], AbstractContextManager[Any]]
    whole: bool = False
    judges: frozenset[str] = frozenset()
    _ahead: Ahead[tuple[int, Share], list[tuple[Read, Part]]] = field(init=False)
    _known: dict[int, dict[str, Tensor]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        def read(key: tuple[int, Share]) -> list[tuple[Read, Part]]:
            return [(self._read(rows), part) for rows, part in self.batches.passes(*key)]

        object.__setattr__(self, "_ahead", Ahead(read))

    def training(self, step: int, share: Share, led: float = 1.0) -> list[Example]:
        """What a process runs in a step; see `passes`."""
        return [example for example, _ in self.passes(step, share, led)]

    def passes(self, step: int, share: Share, led: float = 1.0) -> list[tuple[Example, Part]]:
        """What a process runs in a step, each pass with what it is of the step; the random changes are the step's.

        Args:
            step: its number.
            share: of the process.
            led: weight of the teacher: by it samples are mixed, which no label fits; at 0 the teacher is not asked.
        """
        chance = np.random.default_rng([self.batches.seed, step, share.rank, 1])
        rests = not led and self.batches.pool.fixed is None  # of a filled batch its answers tell where samples end
        known: Mapping[str, Tensor] | None = {} if rests else None
        taken = self._ahead.take((step, share), (step + 1, share))
        return [(self._example(read, chance, known, led), part) for read, part in taken]

    def judged(self) -> Iterator[Example]:
        """What a student is judged on, unchanged."""
        for place, rows in enumerate(self.batches.judged()):
            example = self._example(self._read(rows), None, self._known.get(place))
            if place not in self._known:
                self._keep(place, example.answers)
            yield example

    def _keep(self, place: int, answers: Mapping[str, Tensor]) -> None:
        needed = {name: answers[name] for name in self.judges}
        size = sum(value.nbytes for held in (needed, *self._known.values()) for value in held.values())
        if needed and size <= KEPT:
            self._known[place] = needed

    def _read(self, rows: Rows) -> Read:
        inputs = {name: torch.from_numpy(array) for name, array in self.batches.pool.read(*rows).items()}
        pinned = self.device.type == "cuda"  # from there a copy goes on beside what is computed
        return rows, {name: value.pin_memory() for name, value in inputs.items()} if pinned else inputs

    def _example(
        self,
        read: Read,
        chance: np.random.Generator | None,
        known: Mapping[str, Tensor] | None = None,
        led: float = 1.0,
    ) -> Example:
        pool = self.batches.pool
        rows, held = read
        inputs = {name: value.to(self.device, non_blocking=True) for name, value in held.items()}
        mixed = False
        if chance is not None and self.changes and pool.groups[rows[0]].stacks:
            inputs, mixed = changed(inputs, self.kinds, self.changes, chance, led)
        given = tuple(inputs[spec.name] for spec in pool.inputs)
        filled = pool.fixed is not None and pool.groups[rows[0]].stacks
        answers = known if known is not None else self._answers(given, len(rows[1]), filled)
        labels = as_labels(pool.labels_of(*rows), len(given[0]) if filled and self.whole else None)
        return Example(given, answers, None if labels is None or mixed else labels.to(self.device), len(rows[1]))

    @torch.no_grad()
    def _answers(self, given: tuple[Tensor, ...], count: int, filled: bool) -> dict[str, Tensor]:
        """The teacher's, to the samples alone where the batch was filled up."""
        with self.autocast():
            answers: dict[str, Tensor] = self.teacher(*given)
        if not filled or self.whole:
            return answers
        size = len(given[0])
        return {name: held[:count] if held.dim() and len(held) == size else held for name, held in answers.items()}


def as_labels(labels: NDArray[Any] | None, fill: int | None = None) -> Tensor | None:
    """Labels as a tensor, the last one repeated up to `fill`; None for what are no numbers."""
    if labels is None or labels.dtype.kind not in "iufb":
        return None
    if fill is not None:
        labels = np.concatenate([labels, np.repeat(labels[-1:], fill - len(labels), axis=0)])
    return torch.from_numpy(np.ascontiguousarray(labels))


def input_kinds(batches: Batches) -> dict[str, InputKind]:
    """What the inputs hold, by the longest samples; a mask is one where it lies over an image of its size."""
    longest = max(batches.pool.groups, key=lambda group: sum(prod(held.shape) for held in group.inputs.values()))
    shapes = {name: held.shape for name, held in longest.inputs.items()}
    found = {spec.name: kind_of_input(spec, shapes[spec.name]) for spec in batches.pool.inputs}
    images = {sizes(shapes[name]) for name, kind in found.items() if kind == "image"}
    return {n: "other" if kind == "mask" and sizes(shapes[n]) not in images else kind for n, kind in found.items()}


@torch.no_grad()
def trusted_changes(
    batches: Batches, teacher: nn.Module, answers: tuple[str, ...], kinds: Mapping[str, InputKind], *, mix: bool
) -> Changes:
    """The changes to which the teacher answers as to the samples themselves: a digit that is mirrored is none.

    Args:
        batches: of the training.
        teacher: gives its answers as a dict, on the CPU.
        answers: names of its outputs that hold floats.
        kinds: of the inputs.
        mix: whether samples may be mixed; the teacher answers to the mixture.
    """
    runs = batches.first(LOOKED_AT)
    if not batches.pool.groups[runs[0][0]].stacks:
        return Changes()
    mixes = mix and mixable(kinds)
    if "image" not in kinds.values():
        return Changes(mix=mixes)

    def told(change: Callable[[Inputs], Inputs]) -> dict[str, Tensor]:
        found: list[Mapping[str, Tensor]] = []
        for rows in runs:
            given = change({name: torch.from_numpy(array) for name, array in batches.pool.read(*rows).items()})
            found.append(teacher(*(given[spec.name] for spec in batches.pool.inputs)))
        return {name: torch.cat([one[name].float().flatten() for one in found]) for name in answers}

    def alike(change: Callable[[Inputs], Inputs]) -> bool:
        found = told(change)
        return all(float((found[n] - as_is[n]).square().mean() / spread(as_is[n])) < ALIKE for n in answers)

    as_is = told(lambda given: given)
    return Changes(
        flip=alike(lambda given: mirrored(given, kinds, [True])),
        shift=all(
            alike(partial(shifted, kinds=kinds, down=down, right=right))
            for down, right in ((-1, -1), (-1, 1), (1, -1), (1, 1))
        ),
        mix=mixes,
    )
