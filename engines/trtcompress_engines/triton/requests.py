"""Requests that are made up: any shape that a served model takes, and values that its engine takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from trtcompress_graph.errors import DataError

from .images import make_images
from .served_model import Served, Tensor

if TYPE_CHECKING:
    from ..backend import Array

Feed = dict[str, "Array"]
At = Literal["min", "opt", "max", "any"]
Bounds = Mapping[str, int]
"""Greatest value of each integer input: an index must lie in its table."""

HIGHEST = 255
"""No integer is greater: it may be a length that the model allocates."""


def make_feed(
    served: Served, rng: np.random.Generator, bounds: Bounds, at: At = "any", batch: int | None = None
) -> Feed:
    """One request, arrays as they travel.

    Args:
        served: what is asked.
        rng: draws lengths and values.
        bounds: of integer inputs; without one a value is 0 or 1.
        at: lengths of all axes.
        batch: samples, where Triton batches; None goes by `at`.
    """
    shapes = make_shapes(served, rng, at, batch)
    return {
        tensor.name: make_images(served.images[tensor.name], shapes[tensor.name], rng)
        if tensor.name in served.images
        else _values(tensor, shapes[tensor.name], rng, bounds.get(tensor.name, 1))
        for tensor in served.inputs
    }


def make_shapes(
    served: Served, rng: np.random.Generator, at: At, batch: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Shape of each input as it travels."""
    start = 1 if served.max_batch else 0
    shapes = {tensor.name: [0] * start + list(tensor.dims) for tensor in served.inputs}
    for places, length in served.axes.items():
        least, most = length.min, length.max
        drawn = int(rng.integers(least, most + 1)) if at == "any" else int(getattr(length, at))
        for name, index in places:
            shapes[name][index] = drawn
    if served.max_batch:
        samples = (
            batch or {"min": 1, "opt": 1, "max": served.max_batch}.get(at) or int(rng.integers(1, served.max_batch + 1))
        )
        for shape in shapes.values():
            shape[0] = samples
    return {name: tuple(shape) for name, shape in shapes.items()}


def find_bounds(served: Served, engine: Callable[[Feed], object]) -> dict[str, int]:
    """How great the values of each integer input may be, by asking the engine: 1, 3, 7, ... up to 255.

    Args:
        served: what is asked.
        engine: raises DataError for what it does not take.
    """
    found: dict[str, int] = {}
    rng = np.random.default_rng(0)
    for tensor in served.inputs:
        if np.dtype(tensor.dtype).kind not in "iu":
            continue
        highest = min(HIGHEST, int(np.iinfo(tensor.dtype).max))
        bound = 1
        while bound < highest:
            feed = make_feed(served, rng, found, "opt")
            feed[tensor.name] = np.full_like(feed[tensor.name], bound * 2 + 1 if bound * 2 + 1 < highest else highest)
            try:
                engine(feed)
            except DataError:
                break
            bound = min(bound * 2 + 1, highest)
        found[tensor.name] = bound
    return found


def _values(tensor: Tensor, shape: tuple[int, ...], rng: np.random.Generator, bound: int) -> Array:
    if tensor.dtype == "object":
        return np.array([b"a text"] * int(np.prod(shape)), dtype=object).reshape(shape)
    if tensor.dtype == "bfloat16":
        raise DataError("numpy has no bfloat16: such a request cannot be made up", where=f"input '{tensor.name}'")
    if tensor.dtype == "bool":
        return rng.random(shape) < 0.5
    if tensor.dtype.startswith("float"):
        return rng.standard_normal(shape).astype(tensor.dtype)
    return rng.integers(0, bound + 1, shape).astype(tensor.dtype)
