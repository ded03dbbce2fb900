"""Weights rounded one after the other, each making good what those before it cost (GPTQ, arXiv 2210.17323)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

DAMPING = 0.01
"""Share of the mean of the diagonal that is added to it, as in the paper."""

_BLOCK = 128
"""Columns whose errors reach the columns behind the block together."""


def round_second_order(weight: Doubles, scale: Doubles, moments: Doubles, limit: int) -> npt.NDArray[np.int8]:
    """Integers `q` within `±limit` that make `E |(weight - q * scale) x|^2` small.

    Never worse than rounding to the nearest by that measure: a row for which it would be keeps the nearest integers.
    Costs a Cholesky factor of each system and `outputs * features^2` multiplications.

    Args:
        weight: [systems, outputs, features].
        scale: one step a row, [systems, outputs].
        moments: `E x x^T` of each system, [systems, features, features].
        limit: 127 for 8 bits, 63 for 7.
    """
    nearest = np.clip(np.rint(weight / scale[..., None]), -limit, limit)
    order = np.argsort(-np.diagonal(moments, axis1=1, axis2=2), axis=1, kind="stable")  # the loudest first
    sorted_moments = np.take_along_axis(
        np.take_along_axis(moments, order[:, :, None], axis=1), order[:, None, :], axis=2
    )
    upper = _inverse_factor(sorted_moments)
    if upper is None:
        return nearest.astype(np.int8)
    chosen = _in_order(np.take_along_axis(weight, order[:, None, :], axis=2), scale, upper, limit)
    back = np.empty_like(chosen)
    np.put_along_axis(back, np.broadcast_to(order[:, None, :], back.shape), chosen, axis=2)
    worse = damage(weight, back, scale, moments) > damage(weight, nearest, scale, moments)
    return np.where(worse[..., None], nearest, back).astype(np.int8)


def damage(weight: Doubles, integers: Doubles | npt.NDArray[np.int8], scale: Doubles, moments: Doubles) -> Doubles:
    """`E |(weight - integers * scale) x|^2` of each row, [systems, outputs]."""
    error = weight - integers * scale[..., None]
    found: Doubles = np.einsum("sof,sof->so", error @ moments, error)
    return found


def _inverse_factor(moments: Doubles) -> Doubles | None:
    """`U`, upper triangular, with `U^T U` the inverse of the damped moments; None where there is none."""
    features = moments.shape[-1]
    mean = np.trace(moments, axis1=1, axis2=2) / features
    # A system that never saw anything takes any integers.
    damped = moments + (np.where(mean > 0, DAMPING * mean, 1.0))[:, None, None] * np.eye(features)
    try:
        inverse = np.linalg.inv(damped)
        return np.swapaxes(np.linalg.cholesky((inverse + np.swapaxes(inverse, 1, 2)) / 2), 1, 2)
    except np.linalg.LinAlgError:
        return None


def _in_order(weight: Doubles, scale: Doubles, upper: Doubles, limit: int) -> Doubles:
    left, chosen = weight.copy(), np.empty_like(weight)
    features = weight.shape[2]
    for start in range(0, features, _BLOCK):
        stop = min(start + _BLOCK, features)
        errors = np.empty((*weight.shape[:2], stop - start))
        for i in range(start, stop):
            nearest = np.clip(np.rint(left[:, :, i] / scale), -limit, limit)
            chosen[:, :, i] = np.where(weight[:, :, i] == 0, 0, nearest)  # what is sparse stays sparse
            error = (left[:, :, i] - chosen[:, :, i] * scale) / upper[:, i, i][:, None]
            left[:, :, i:stop] -= error[:, :, None] * upper[:, None, i, i:stop]
            errors[:, :, i - start] = error
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return chosen
