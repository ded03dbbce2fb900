"""Axis ranges of the config, by the names that the model's graph gives its axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from trtcompress_graph.axes import At, Axes, AxisRange, input_shapes
from trtcompress_graph.errors import ConfigError
from trtcompress_graph.model import Model, TensorSpec

Shapes = dict[str, tuple[int, ...]]
"""Concrete shape of each input."""

USUAL_BATCH = AxisRange(1, 1, 8)
"""Of a batch axis of which nothing is said."""


def named_axes(model: Model, axes: Axes) -> dict[str, dict[str, AxisRange]]:
    """`{input: {axis: range}}` with the names that stand in the model's shapes.

    A key of the config may be the name, `name@index`, or the index. An axis of one length, which the graph holds as a
    number, is left out.

    Raises:
        ConfigError: the model has no such input or no such dynamic axis, or an axis has one range at one input and
            another at another.
    """
    by_name = {spec.name: spec for spec in model.inputs}
    named = {
        name: {
            _axis(spec, key): rng
            for spec in [_input(name, by_name)]
            for key, rng in ranges.items()
            if not _fixed(spec, key, rng)
        }
        for name, ranges in axes.items()
    }
    first: dict[str, tuple[str, AxisRange]] = {}
    for name, ranges in named.items():
        for axis, rng in ranges.items():
            other, held = first.setdefault(axis, (name, rng))
            if rng != held:
                raise ConfigError(
                    f"the axis '{axis}' has another range here than at the input '{other}'",
                    where=f"model.inputs.{name}.{axis}",
                    hint="inputs that share an axis share its range: give it at one of them",
                )
    return named


def _input(name: str, by_name: dict[str, TensorSpec]) -> TensorSpec:
    if name in by_name:
        return by_name[name]
    near = get_close_matches(name, by_name, n=1)
    raise ConfigError(
        f"the model has no input '{name}'",
        where=f"model.inputs.{name}",
        hint=f"did you mean '{near[0]}'?" if near else f"its inputs are: {', '.join(by_name)}",
    )


def _fixed(spec: TensorSpec, key: str, rng: AxisRange) -> bool:
    """Whether the graph itself has the one length that the config gives the axis."""
    if rng.min != rng.max or key.partition("@")[0] in spec.shape:
        return False
    place = key.rpartition("@")[2]
    index = int(place) if place.isdigit() else None
    return rng.min in (spec.shape if index is None else spec.shape[index : index + 1])


def _axis(spec: TensorSpec, key: str) -> str:
    name = key.partition("@")[0]
    if name in spec.shape:
        return name
    index = key.rpartition("@")[2]
    if index.isdigit() and int(index) < len(spec.shape) and isinstance(spec.shape[int(index)], str):
        return str(spec.shape[int(index)])
    dynamic = [dim for dim in spec.shape if isinstance(dim, str)]
    raise ConfigError(
        f"the input '{spec.name}' has no dynamic axis '{key}'",
        where=f"model.inputs.{spec.name}.{key}",
        hint=f"its dynamic axes are: {', '.join(dynamic)}" if dynamic else f"its shape is fixed: {spec.shape}",
    )


def usual_shapes(model: Model, axes: Axes, sample: Mapping[str, tuple[int, ...]] | None = None) -> Shapes:
    """Shape of each input that costs are counted at: dynamic axes at their usual length, else the sample's, else 1.

    Args:
        model: the model.
        axes: ranges of dynamic axes; one that inputs share may be given at any of them.
        sample: shape of each input of a sample.

    Raises:
        ConfigError: the model has no such input or axis.
    """
    usual = {axis: rng.opt for named in named_axes(model, axes).values() for axis, rng in named.items()}

    def length(spec: TensorSpec, place: int) -> int:
        dim = spec.shape[place]
        return dim if isinstance(dim, int) else usual.get(dim) or (sample[spec.name][place] if sample else 1)

    return {spec.name: tuple(length(spec, place) for place in range(len(spec.shape))) for spec in model.inputs}


def profiles(model: Model, axes: Axes) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Least, usual and greatest shape of each input that has a dynamic axis.

    Raises:
        ModelError: a dynamic axis has no range.
    """
    dynamic = [spec for spec in model.inputs if any(isinstance(dim, str) for dim in spec.shape)]
    named = named_axes(model, axes)
    order: tuple[At, ...] = ("min", "opt", "max")
    shapes = [input_shapes(dynamic, named, at) for at in order]
    return {spec.name: (shapes[0][spec.name], shapes[1][spec.name], shapes[2][spec.name]) for spec in dynamic}


def batch_range(inputs: Sequence[TensorSpec], axes: Axes) -> AxisRange | None:
    """Range of the batch axis: the leading dynamic axis that all inputs share; None where there is none.

    Where the config does not say, it is `USUAL_BATCH`.
    """
    leading = {spec.shape[0] if spec.shape else None for spec in inputs}
    if len(leading) != 1 or not isinstance(axis := leading.pop(), str):
        return None
    ranges = [named[axis] for named in axes.values() if axis in named]
    return ranges[0] if ranges else USUAL_BATCH
