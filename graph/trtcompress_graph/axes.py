"""Ranges of dynamic axes, and the input shapes that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import ModelError
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
        ModelError: a dynamic axis has no range.
    """
    axes = plain_axes(axes)
    shared = {axis: rng for ranges in axes.values() for axis, rng in ranges.items()}

    def length(spec: TensorSpec, dim: int | str) -> int:
        if isinstance(dim, int):
            return dim
        rng = axes.get(spec.name, {}).get(dim) or shared.get(dim)
        if rng is None:
            raise ModelError(
                f"the dynamic axis '{dim}' has no range",
                where=f"input '{spec.name}'",
                hint=f"give its least, usual and greatest length: --set 'model.inputs.{spec.name}.{dim}=[1, 8, 16]'",
            )
        value: int = getattr(rng, at)
        return value

    return {spec.name: tuple(length(spec, dim) for dim in spec.shape) for spec in inputs}
