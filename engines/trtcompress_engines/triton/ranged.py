"""The ranges of a model's axes in `config.pbtxt`, where Triton itself only knows -1."""

from __future__ import annotations

import json
from collections.abc import Mapping

from trtcompress_graph.axes import Axes, AxisRange, plain_axes
from trtcompress_graph.model import Model

RANGES = "axes"
"""The parameter that holds them."""


def to_text(graph: Model, axes: Axes, batched: bool) -> str:
    """JSON of `[{"at": ["ids@1", "mask@1"], "range": [1, 12, 40]}]`: places of an axis as it travels, and its lengths.

    Args:
        graph: with the names of the axes.
        axes: ranges by those names; an axis without one is left out.
        batched: the first axis of every input is Triton's, and left out.
    """
    known = plain_axes(axes)
    shared = {axis: length for ranges in known.values() for axis, length in ranges.items()}
    places: dict[str, list[str]] = {}
    for spec in graph.inputs:
        for index, dim in enumerate(spec.shape):
            if isinstance(dim, str) and not (batched and index == 0):
                places.setdefault(dim, []).append(f"{spec.name}@{index}")
    entries = [
        {"at": at, "range": [shared[axis].min, shared[axis].opt, shared[axis].max]}
        for axis, at in places.items()
        if axis in shared
    ]
    return json.dumps(entries)


def from_text(text: str) -> dict[tuple[tuple[str, int], ...], AxisRange]:
    """What `to_text` wrote: `{((input, index), ...): range}`.

    Raises:
        ValueError: it is not of that form; KeyError and TypeError likewise.
    """
    found: dict[tuple[tuple[str, int], ...], AxisRange] = {}
    for entry in json.loads(text):
        least, usual, greatest = (int(length) for length in entry["range"])
        if not 0 <= least <= usual <= greatest:
            raise ValueError(f"{entry['range']} is no range")
        found[tuple(_place(place) for place in entry["at"])] = AxisRange(least, usual, greatest)
    return found


def _place(text: str) -> tuple[str, int]:
    name, _, index = text.rpartition("@")
    return name, int(index)


def parameters(graph: Model, axes: Axes, batched: bool) -> Mapping[str, str]:
    """The parameter, and nothing where no axis has a range."""
    text = to_text(graph, axes, batched)
    return {RANGES: text} if text != "[]" else {}
