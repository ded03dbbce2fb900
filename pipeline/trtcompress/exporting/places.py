"""Where the dynamic axes of a network's input stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import ConfigError

BATCH = "batch"
"""The name of axis 0."""

_AS_GOOD_AS_BATCH = 0.8
"""From this likeness on (see difflib) a name is taken for a misspelt `batch`."""


@dataclass(frozen=True, slots=True)
class DynamicAxis:
    """A dynamic axis: its name, and its lengths where the config tells them."""

    name: str
    range: AxisRange | None


def place_axes(
    name: str, rank: int, ranges: Mapping[str, AxisRange], declared: Mapping[int, str] | Sequence[int]
) -> dict[int, DynamicAxis]:
    """Where the dynamic axes of an input stand.

    `dynamic_axes` of the function has the first word. In the config `height@2` tells the place and `2` is the place.
    A bare `batch` is axis 0; where axis 0 is named, and no other axis by its place, the other bare names are axis 1,
    2 ... in their order. Where axis 0 is not named, bare names have to be as many as the input has axes.

    Args:
        name: of the input.
        rank: how many axes it has.
        ranges: of the config, by key.
        declared: names by place, or places alone, of the function.

    Raises:
        ConfigError: a key whose axis is not there, or whose place is not told.
    """
    named = dict(declared) if isinstance(declared, Mapping) else {index: f"{name}_{index}" for index in declared}
    placed = {int(index) % rank: DynamicAxis(axis, ranges.get(axis)) for index, axis in named.items()}
    bare = []
    for key, rng in ranges.items():
        axis, _, place = key.rpartition("@")
        if key in named.values():
            continue
        if not place.isdigit():
            bare.append(key)
            continue
        index = _inside(int(place), rank, name, key)
        called = placed[index].name if index in placed else axis or f"{name}_{place}"
        placed[index] = DynamicAxis(called, rng)
    if BATCH in bare and rank:
        bare.remove(BATCH)
        placed.setdefault(0, DynamicAxis(BATCH, ranges[BATCH]))
    if not bare:
        return placed
    first = _first_place(name, rank, bare, placed)
    return placed | {_inside(i, rank, name, key): DynamicAxis(key, ranges[key]) for i, key in enumerate(bare, first)}


def described(axes: Mapping[str, Mapping[int, DynamicAxis]]) -> list[str]:
    """One line for each input: what its axes are called."""
    return [
        f"{name}: " + (", ".join(f"axis {i} = {placed[i].name}" for i in sorted(placed)) or "no dynamic axis")
        for name, placed in axes.items()
    ]


def _first_place(name: str, rank: int, bare: list[str], placed: Mapping[int, DynamicAxis]) -> int:
    """Place of the first of the bare names."""
    if set(placed) == {0}:
        return 1
    likely = next((key for key in bare if get_close_matches(key.lower(), [BATCH], cutoff=_AS_GOOD_AS_BATCH)), None)
    if likely and 0 not in placed:
        raise ConfigError(
            f"the axis '{likely}' is not told apart from '{BATCH}'",
            where=f"model.inputs.{name}.{likely}",
            hint=f"did you mean '{BATCH}'? If not, write the place of the axis with its name: {likely}@0",
        )
    if not placed and len(bare) == rank:
        return 0
    raise ConfigError(
        f"it is not told which of the {rank} axes '{bare[0]}' is",
        where=f"model.inputs.{name}.{bare[0]}",
        hint=f"write its place, counted from 0, with its name: {bare[0]}@{min(1, rank - 1)}",
    )


def _inside(index: int, rank: int, name: str, key: str) -> int:
    if index < rank:
        return index
    raise ConfigError(
        f"the input '{name}' has {rank} axes, so it has no axis {index} ('{key}')",
        where=f"model.inputs.{name}.{key}",
        hint="places are counted from 0; write the place of an axis with its name, such as "
        f"{key.rpartition('@')[0] or 'length'}@{max(rank - 1, 0)}",
    )
