"""The ranges of a model's axes in `config.pbtxt`, where Triton itself only knows -1."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trtcompress_graph.axes import Axes, AxisRange, plain_axes
from trtcompress_graph.errors import RepositoryError
from trtcompress_graph.model import Model, TensorSpec

from .modelconfig import parameter

RANGES = "axes"
"""The parameter that holds them."""

Place = tuple[str, int]
"""An input, and the index of an axis as it travels: with the batch, where Triton batches."""


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


def from_text(text: str) -> dict[tuple[Place, ...], AxisRange]:
    """What `to_text` wrote: `{((input, index), ...): range}`.

    Raises:
        ValueError: it is not of that form; KeyError and TypeError likewise.
    """
    found: dict[tuple[Place, ...], AxisRange] = {}
    for entry in json.loads(text):
        least, usual, greatest = (int(length) for length in entry["range"])
        if not 0 <= least <= usual <= greatest:
            raise ValueError(f"{entry['range']} is no range")
        found[tuple(_place(place) for place in entry["at"])] = AxisRange(least, usual, greatest)
    return found


def _place(text: str) -> Place:
    name, _, index = text.rpartition("@")
    return name, int(index)


def parameters(graph: Model, axes: Axes, batched: bool) -> Mapping[str, str]:
    """The parameter, and nothing where no axis has a range."""
    text = to_text(graph, axes, batched)
    return {RANGES: text} if text != "[]" else {}


def packaged(config: Any, folder: Path, graph: Model | None) -> dict[tuple[Place, ...], AxisRange]:
    """What `package` wrote; of older packages the lengths of the warm-up, and no others."""
    text = parameter(config, RANGES)
    if text:
        try:
            return from_text(text)
        except (ValueError, TypeError, KeyError, json.JSONDecodeError) as error:
            raise RepositoryError(
                f"parameter '{RANGES}' is damaged: {error}", where=str(folder / "config.pbtxt"), hint="package it again"
            ) from error
    start = 1 if config.max_batch_size else 0
    lengths: dict[tuple[Place, ...], AxisRange] = {}
    if config.model_warmup:
        usual = config.model_warmup[-1].inputs
        for entry in config.input:
            for index, dim in enumerate(entry.dims):
                if dim == -1 and entry.name in usual:
                    length = int(usual[entry.name].dims[index])
                    places = _places(graph.inputs if graph else (), entry.name, index + start)
                    lengths[places] = AxisRange(length, length, length)
    return lengths


def overridden(
    ranges: Mapping[tuple[Place, ...], AxisRange], axes: Axes, graph: Model | None
) -> dict[tuple[Place, ...], AxisRange]:
    """An axis is meant where it is at any of its places; its name is known where there is a graph."""
    specs: tuple[TensorSpec, ...] = graph.inputs if graph else ()
    index_of = {(spec.name, str(dim)): index for spec in specs for index, dim in enumerate(spec.shape)}
    found = dict(ranges)
    for tensor, named in axes.items():
        for axis, length in named.items():
            index = int(axis) if axis.isdigit() else index_of.get((tensor, axis))
            if index is None:
                continue
            places = next((key for key in found if (tensor, index) in key), None)
            found[places or _places(specs, tensor, index)] = length
    return found


def _places(specs: Sequence[TensorSpec], tensor: str, index: int) -> tuple[Place, ...]:
    """All places of the axis that is here."""
    dim = next((spec.shape[index] for spec in specs if spec.name == tensor and index < len(spec.shape)), None)
    shared = [(spec.name, i) for spec in specs for i, other in enumerate(spec.shape) if other == dim]
    return tuple(shared) if isinstance(dim, str) else ((tensor, index),)
