"""Weights and biases as integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trtcompress_graph.encoding import FloatType
from trtcompress_graph.errors import UsageError

from .scales import F8_MAX, Floats, quantize, storable, to_f8

_BIAS_LIMIT = 2**30
"""Least |int32| bias that is guarded against: a bit is left for the sum that it joins."""

_SHARES = (*np.linspace(1, 0.9, 26), *np.linspace(0.88, 0.5, 20))
"""Of the greatest weight of a channel that `mse` looks at as its reach. Close to 1 nothing is clipped yet, and in
channels of few weights, as depthwise ones are, what is rounded falls better on some steps than on others."""


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """s8 (or FP8) values with one scale for each index of `axis`, or one for all where `axis` is None."""

    values: npt.NDArray[Any]
    scale: Floats
    axis: int | None


def quantize_weight(
    weight: Floats,
    axis: int | None,
    bits: int,
    float_type: FloatType,
    least_scale: Floats | None = None,
    method: str = "minmax",
) -> QuantizedWeight:
    """Symmetric, the reach of each channel on `2 ** (bits - 1) - 1`.

    Args:
        weight: any shape.
        axis: the axis of the output channels, or None for one scale.
        bits: 8, or 7 for a reduced range.
        float_type: type that the scale is stored in.
        least_scale: lower bound of each scale (see `least_scale_for`).
        method: what a channel reaches to; see `WEIGHT_METHODS`.

    Raises:
        UsageError: there is no such method.
    """
    limit = 2 ** (bits - 1) - 1
    rows = weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    scale = find_weight_method(method)(rows, limit).astype(np.float32) / np.float32(limit)
    live = scale[scale >= np.finfo(np.float32).tiny]
    # A channel of zeros takes any scale: the finest of the others also suits its bias.
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, live.min() if live.size else np.float32(1))
    if least_scale is not None:
        scale = np.maximum(scale, least_scale)
    held = storable(scale.astype(np.float32), float_type)
    return QuantizedWeight(quantize(weight, held, axis, limit), held if axis is not None else held[:1], axis)


def find_weight_method(name: str) -> Callable[[Floats, int], Floats]:
    """The method of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in WEIGHT_METHODS:
        raise UsageError(f"unknown method '{name}' for weights", hint=f"one of: {', '.join(WEIGHT_METHODS)}")
    return WEIGHT_METHODS[name]


def minmax(rows: Floats, limit: int) -> Floats:
    """The greatest absolute value of each row [channels, weights]: nothing is clipped."""
    reach: Floats = np.abs(rows).max(axis=1, initial=0)
    return reach


def mse(rows: Floats, limit: int) -> Floats:
    """The reach of least squared error of rounding and clipping to `limit` steps on each side of zero.

    Of shares of the greatest absolute value, from all to half of it; the widest of equally good ones.
    """
    best = greatest = minmax(rows, limit)
    least = np.full(len(rows), np.inf)
    for share in _SHARES:
        reach = greatest * np.float32(share)
        step = np.maximum(reach / np.float32(limit), np.finfo(np.float32).tiny)[:, None]
        error = np.square(np.clip(np.rint(rows / step), -limit, limit) * step - rows).sum(axis=1, dtype=np.float64)
        best, least = np.where(error < least, reach, best), np.minimum(error, least)
    return best


WEIGHT_METHODS: dict[str, Callable[[Floats, int], Floats]] = {"minmax": minmax, "mse": mse}
"""What a channel of a weight reaches to, by name."""


def quantize_weight_f8(weight: Floats, axis: int | None, float_type: FloatType) -> QuantizedWeight:
    """FP8 (E4M3), absolute maximum on 448; arguments as those of `quantize_weight`."""
    axes = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    reach = np.atleast_1d(np.max(np.abs(weight), axis=axes, initial=0.0)).astype(np.float32)
    scale = np.where(reach > F8_MAX * np.finfo(np.float32).tiny, reach / np.float32(F8_MAX), np.float32(1))
    held = storable(scale.astype(np.float32), float_type)
    steps = held if axis is None else held.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    return QuantizedWeight(to_f8(weight / steps), held, axis)


def least_scale_for(bias: Floats, input_scale: np.float32) -> Floats:
    """Weight scales below these would push the int32 bias out of range."""
    return (np.abs(bias) / (np.float64(input_scale) * _BIAS_LIMIT)).astype(np.float32)


def quantize_bias(bias: Floats, input_scale: np.float32, weight_scale: Floats) -> tuple[npt.NDArray[np.int32], Floats]:
    """`round(bias / (input_scale * weight_scale))` as int32, and that product as the bias's scale."""
    scale = (np.float32(input_scale) * weight_scale).astype(np.float32)
    if scale.size == 1:
        scale = np.broadcast_to(scale, bias.shape).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    steps = np.rint(bias.astype(np.float64) / scale)
    return np.clip(steps, -(2**31), 2**31 - 1).astype(np.int32), scale
