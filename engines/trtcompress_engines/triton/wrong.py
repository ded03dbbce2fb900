"""Requests that a server has to refuse: each is a good one with one thing wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np

from .requests import Feed
from .served_model import Served

if TYPE_CHECKING:
    from ..backend import Array

Wrong = tuple[str, Feed, tuple[str, ...]]
"""What is wrong, the request, and the outputs that it asks for (all where none is named)."""


def wrong_requests(served: Served, good: Feed) -> Iterator[Wrong]:
    """One request for each thing that can be wrong with this model's."""
    first = served.inputs[0]
    value = good[first.name]
    other = np.float64 if first.dtype != "float64" else np.float32
    wrong = value.astype(other) if first.dtype != "object" else np.zeros(value.shape, np.float32)
    yield "wrong type", good | {first.name: wrong}, ()
    for name in served.images:
        yield "no image", good | {name: _no_image(good[name])}, ()
    yield "wrong rank", good | {first.name: value[..., np.newaxis]}, ()
    shape = _wrong_shape(served, good)
    if shape is not None:
        yield "wrong shape", shape, ()
    yield "missing input", {name: array for name, array in good.items() if name != first.name}, ()
    yield "unknown input", good | {free_name(good, "no_such_input"): np.zeros_like(value)}, ()
    outputs = {tensor.name for tensor in served.outputs}
    yield "unknown output", good, (free_name(outputs, "no_such_output"),)
    if served.max_batch:
        yield "too large a batch", {name: _samples(array, served.max_batch + 1) for name, array in good.items()}, ()


def _wrong_shape(served: Served, good: Feed) -> Feed | None:
    """A fixed axis one longer, where there is one."""
    start = 1 if served.max_batch else 0
    for tensor in served.inputs:
        for index, dim in enumerate(tensor.dims):
            if dim > 0:
                value = good[tensor.name]
                grown = np.concatenate([value, value.take([0], index + start)], index + start)
                return good | {tensor.name: grown}
    return None


def _no_image(images: Array) -> Array:
    """What cannot be decoded, in place of the last image."""
    broken = images.copy()
    broken.reshape(-1)[-1] = b"this is no image"
    return broken


def _samples(array: Array, count: int) -> Array:
    return np.repeat(array[:1], count, axis=0)


def free_name(taken: Collection[str], name: str) -> str:
    """The name, or one like it that is not taken."""
    while name in taken:
        name += "_"
    return name
