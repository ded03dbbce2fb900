"""Inputs of other sizes than the examples, made of the values that the examples hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from trtcompress_graph.axes import At

from .network import Network
from .places import DynamicAxis

if TYPE_CHECKING:
    import torch

Lengths = dict[str, int]

_MOST_ELEMENTS = 1 << 22
"""A comparison does not feed more input elements than this; the batch is cut to fit."""


def lengths_at(network: Network, at: At) -> Lengths:
    """Length of each named axis at the `min`, `opt` or `max` of its range; as in the examples where it has none."""
    lengths: Lengths = {}
    for name, axes in network.axes.items():
        for index, axis in axes.items():
            if axis.range is not None:
                lengths[axis.name] = getattr(axis.range, at)
            else:
                lengths.setdefault(axis.name, network.inputs[name].shape[index])
    return lengths


def tracing_lengths(network: Network) -> Lengths:
    """Lengths to trace with: none is 1, which PyTorch takes for a constant; no two are equal if that is possible."""
    lengths: Lengths = {}
    for name, axes in network.axes.items():
        for index, axis in axes.items():
            if axis.name not in lengths:
                lengths[axis.name] = _tracing_length(axis, network.inputs[name].shape[index], set(lengths.values()))
    return lengths


def _tracing_length(axis: DynamicAxis, example: int, taken: set[int]) -> int:
    """The example's length, or the next best of the range that is no other axis's."""
    rng = axis.range
    if rng is None:
        return max(example, 2)
    if rng.min == rng.max:
        return rng.min
    usual = [n for n in (example, rng.opt, rng.max) if rng.min <= n <= rng.max and n > 1]
    others = range(max(rng.min, 2), min(rng.max, 64) + 1)
    return next((n for n in (*usual, *others) if n not in taken), max(rng.max, 2) if not usual else usual[0])


def told(lengths: Mapping[str, int]) -> str:
    """Inputs of these lengths, in words."""
    return "inputs with " + ", ".join(f"{axis}={length}" for axis, length in lengths.items())


def resized(
    network: Network, lengths: Mapping[str, int], rng: np.random.Generator | None = None
) -> dict[str, torch.Tensor]:
    """Inputs with these lengths: the examples repeated or cut, or values drawn like theirs."""
    import torch

    made: dict[str, torch.Tensor] = {}
    for name, example in network.inputs.items():
        tensor = example
        for index, axis in network.axes.get(name, {}).items():
            wanted = torch.arange(lengths[axis.name]) % example.shape[index]
            tensor = tensor.index_select(index, wanted)
        made[name] = tensor.contiguous() if rng is None else _drawn(example, tuple(tensor.shape), rng)
    return made


def within_budget(network: Network, lengths: Lengths) -> Lengths:
    """The lengths, with the first axes made shorter where all inputs together would be too large."""
    least = lengths_at(network, "min")
    first = {axes[0].name for axes in network.axes.values() if 0 in axes}

    def elements() -> int:
        shapes = [
            [lengths[axes[i].name] if i in (axes := network.axes.get(name, {})) else n for i, n in enumerate(t.shape)]
            for name, t in network.inputs.items()
        ]
        return sum(int(np.prod(shape)) for shape in shapes)

    lengths = dict(lengths)
    while elements() > _MOST_ELEMENTS and any(lengths[axis] > max(least[axis], 1) for axis in first):
        for axis in first:
            lengths[axis] = max(least[axis], lengths[axis] // 2, 1)
    return lengths


def _drawn(example: torch.Tensor, shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """Random values of the example's kind: its mean and spread for floats, its very values for the others."""
    import torch

    if example.is_floating_point():
        values = example.double()
        spread = float(values.std()) if example.numel() > 1 else 1.0
        drawn = rng.standard_normal(shape) * (spread or 1.0) + float(values.mean())
        return torch.from_numpy(np.asarray(drawn)).to(example.dtype)
    values = example.reshape(-1)
    return values[torch.from_numpy(rng.integers(0, values.numel(), shape))].reshape(shape)
