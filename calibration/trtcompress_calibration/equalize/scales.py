"""How wide each channel of a junction should be: one function a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from .junctions import Junction, Slot, Tap

Weights = dict[str, npt.NDArray[np.float32]]
Maxima = Mapping[str, npt.NDArray[np.float64]]
Doubles = npt.NDArray[np.float64]
Method = Callable[[Junction, Weights, Doubles], Doubles]

METHODS: dict[str, Method] = {}

MARGIN = 1.25
"""A channel below a cap stays below it, before and after, even where a value is so many times its maximum."""

FURTHEST = 100.0
"""A channel is not made wider or narrower by more than this: one that is all but dead must not drown the others."""

_ROUNDS = 20
_STILL = 1e-3


def equalizing_scales(
    found: tuple[Junction, ...], weights: Weights, maxima: Maxima, method: str
) -> tuple[dict[str, Doubles], Weights]:
    """The scale of every junction by its name, and the weights that they make.

    A layer stands between two junctions, so that each scale moves the optimum of the next one: the junctions are gone
    through until all stand still.

    Args:
        found: the junctions of a graph.
        weights: float32 tensors by name; those that junctions name are looked up.
        maxima: greatest absolute value of each channel, by the name of a tensor that is tapped.
        method: a name of `METHODS`.
    """
    scale = METHODS[method]
    scaled = dict(weights)
    total = {j.name: np.ones(j.channels) for j in found}
    for _ in range(_ROUNDS):
        moved = 0.0
        for junction in found:
            widest = _widest(junction, maxima) / total[junction.name]
            step = _fitting(scale(junction, scaled, widest), junction, maxima, total[junction.name])
            move(junction, scaled, step)
            total[junction.name] *= step
            moved = max(moved, float(np.abs(np.log(step)).max(initial=0)))
        if moved < _STILL:
            break
    return total, scaled


def move(junction: Junction, weights: Weights, scale: Doubles) -> None:
    """Divide what makes the channels by the scale and multiply what reads them; `weights` gets new arrays."""
    for slots, power in ((junction.weights, -1), (junction.biases, -1), (junction.multiplied, 1)):
        for slot in slots:
            old = weights[slot.tensor]
            factor = (scale**power)[slot.labels].reshape([-1 if i == slot.axis else 1 for i in range(old.ndim)])
            weights[slot.tensor] = (old * factor).astype(np.float32)


def _cross_layer(junction: Junction, weights: Weights, widest: Doubles) -> Doubles:
    """Both layers get weights of equal reach (Nagel et al., arXiv 1906.04721, eq. 11)."""
    if junction.norm:
        return np.ones(junction.channels)
    ratio = _ratio(_reach(junction.weights, weights, junction), _reach(junction.multiplied, weights, junction))
    return _root(ratio)


def _smooth(junction: Junction, weights: Weights, widest: Doubles) -> Doubles:
    """Activations and the weights that read them share the spread (SmoothQuant, arXiv 2211.10438, alpha 1/2).

    The greatest activation stays where it is: one factor for all channels changes nothing but what is under a cap.
    """
    scale = _root(_ratio(widest, _reach(junction.multiplied, weights, junction)))
    kept: float = (widest / scale).max(initial=0) / max(widest.max(initial=0), np.finfo(np.float64).tiny)
    return scale * kept


METHODS |= {"cross-layer": _cross_layer, "smooth": _smooth}


def _root(ratio: Doubles) -> Doubles:
    root: Doubles = np.sqrt(ratio)
    return root


def _ratio(above: Doubles, below: Doubles) -> Doubles:
    """1 where a channel is dead on either side."""
    live = (above > 0) & (below > 0) & np.isfinite(above) & np.isfinite(below)
    return np.divide(above, below, out=np.ones_like(above), where=live)


def _reach(slots: tuple[Slot, ...], weights: Weights, junction: Junction) -> Doubles:
    """Greatest absolute weight of each channel."""
    found = np.zeros(junction.channels)
    for slot in slots:
        array = weights[slot.tensor]
        each = np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != slot.axis), initial=0)
        np.maximum.at(found, slot.labels, each.astype(np.float64))
    return found


def _widest(junction: Junction, maxima: Maxima) -> Doubles:
    """Greatest absolute value of each channel in the tensors between."""
    widest: Doubles = np.max([maxima[tap.tensor] for tap in junction.taps], axis=0)
    return widest


def _fitting(scale: Doubles, junction: Junction, maxima: Maxima, total: Doubles) -> Doubles:
    """The scale where caps let it be: a channel that comes near its cap stays as it is."""
    step = np.where(np.isfinite(scale) & (scale > 0), scale, 1.0)
    step = (step * total).clip(1 / FURTHEST, FURTHEST) / total
    for tap in junction.taps:
        step = _under_cap(step, tap, maxima[tap.tensor], total)
    return step


def _under_cap(step: Doubles, tap: Tap, widest: Doubles, total: Doubles) -> Doubles:
    if not np.isfinite(tap.cap):
        return step
    free = widest * MARGIN < tap.cap
    least = widest * MARGIN / tap.cap / total
    return np.where(free, np.maximum(step, least), 1 / total)
