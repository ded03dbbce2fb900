"""Several optimization profiles: parts of the ranges of the axes, which together make up the whole."""

from __future__ import annotations

from collections.abc import Sequence

from trtcompress_engines.tensorrt_options import SECTION
from trtcompress_graph.axes import Axes, AxisRange
from trtcompress_graph.errors import ConfigError


def joined(axes: Axes, part: Axes) -> Axes:
    """The ranges of a part; what it does not say is as in the whole."""
    return {**axes, **{name: {**axes.get(name, {}), **own} for name, own in part.items()}}


def refuse_gaps(parts: Sequence[Axes], axes: Axes) -> None:
    """Every length of an axis must lie in a part, and no part may reach beyond.

    Raises:
        ConfigError: naming the part, or the length that no part holds.
    """
    for index, part in enumerate(parts):
        for name, own in part.items():
            if name not in axes and axes:
                what = f"model.inputs has no '{name}' with a range; it has {', '.join(axes)}"
                hint = "name one of these, or give that input its whole range first"
                raise ConfigError(what, where=f"{SECTION}.profiles.{index}.{name}", hint=hint)
            for axis, rng in own.items():
                whole = axes.get(name, {}).get(axis)
                _refuse_beyond(rng, whole, f"model.inputs.{name}.{axis}", f"{SECTION}.profiles.{index}.{name}.{axis}")
    if not parts:
        return
    for name, ranges in axes.items():
        for axis, whole in ranges.items():
            missing = _first_gap([joined(axes, part)[name][axis] for part in parts], whole)
            if missing is not None:
                raise ConfigError(
                    f"no profile holds the length {missing} of the axis '{axis}', which goes up to {whole.max}",
                    where=f"{SECTION}.profiles",
                    hint=f"widen one, or give model.inputs.{name}.{axis} only the lengths that are needed",
                )


def _refuse_beyond(rng: AxisRange, whole: AxisRange | None, key: str, where: str) -> None:
    if whole is None:
        hint = f"give its whole range first: --set '{key}=[1, 8, 16]'"
        raise ConfigError(f"{key} is not given, of which this is a part", where=where, hint=hint)
    if rng.min < whole.min or rng.max > whole.max:
        what = f"the profile goes from {rng.min} to {rng.max}, beyond {whole.min} to {whole.max}"
        raise ConfigError(what, where=where, hint=f"stay within it, or widen {key}")


def _first_gap(ranges: Sequence[AxisRange], whole: AxisRange) -> int | None:
    """The least length of the whole that no range holds."""
    reached = whole.min - 1
    for rng in sorted(ranges, key=lambda rng: rng.min):
        if rng.min > reached + 1:
            break
        reached = max(reached, rng.max)
    return reached + 1 if reached < whole.max else None
