"""Ranges of dynamic axes, and the input shapes that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import UsageError
from .model import TensorSpec

At = Literal["min", "opt", "max"]


@dataclass(frozen=True, slots=True)
class AxisRange:
    """Least, usual and greatest length of a dynamic axis."""

    min: int
    opt: int
    max: int


Axes = Mapping[str, Mapping[str, AxisRange]]
"""`{input name: {axis name: range}}`."""


def plain_axes(axes: Axes) -> dict[str, dict[str, AxisRange]]:
    """The axes under the names that they have in the graph.

    In a config an axis may be written with its place: `height@2` is called `height`, and a bare place such as `2`
    stands for the axis without a name, which is called `<input>_2`.
    """
    return {
        name: {f"{name}_{axis}" if axis.isdigit() else axis.partition("@")[0]: rng for axis, rng in ranges.items()}
        for name, ranges in axes.items()
    }


def input_shapes(inputs: Sequence[TensorSpec], axes: Axes, at: At) -> dict[str, tuple[int, ...]]:
    """Concrete shape of each input at the `min`, `opt` or `max` of its axes.

    An axis that is ranged at one input has that range at every input that carries the same axis name.

    Raises:
        UsageError: dynamic axes have no range; all of them are named.
    """
    axes = plain_axes(axes)
    shared = {axis: rng for ranges in axes.values() for axis, rng in ranges.items()}
    lacking: dict[str, list[str]] = {}

    def length(spec: TensorSpec, dim: int | str) -> int:
        if isinstance(dim, int):
            return dim
        rng = axes.get(spec.name, {}).get(dim) or shared.get(dim)
        if rng is None:
            lacking.setdefault(dim, []).append(spec.name)
            return 0
        value: int = getattr(rng, at)
        return value

    shapes = {spec.name: tuple(length(spec, dim) for dim in spec.shape) for spec in inputs}
    if lacking:
        raise _without_range(lacking)
    return shapes


def _without_range(lacking: Mapping[str, Sequence[str]]) -> UsageError:
    """Every axis, with the inputs that carry it; one range is enough for those that share a name."""
    named = "; ".join(f"'{axis}' of {', '.join(dict.fromkeys(names))}" for axis, names in lacking.items())
    several = len(lacking) > 1
    settings = " ".join(f"--set 'model.inputs.{names[0]}.{axis}=[1, 8, 16]'" for axis, names in lacking.items())
    options = " ".join(f"--axis {names[0]}.{axis}=1,8,16" for axis, names in lacking.items())
    return UsageError(
        f"the dynamic {'axes have' if several else 'axis has'} no range: {named}",
        where="model.inputs",
        hint=f"give the least, usual and greatest length{' of each' if several else ''}: trtcompress build ... "
        f"{settings}; every other command takes: {options}",
    )
