"""What the values of shared options stand for, and what several commands say and refuse alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .main import say

if TYPE_CHECKING:
    from trtcompress_graph.axes import AxisRange
    from trtcompress_graph.model import Model
    from trtcompress_graph.ranges import Ranges

    from ..stage import DataRef

STATE = "trtcompress.state"
"""Where a command keeps the values of --state."""


def axes(texts: tuple[str, ...]) -> dict[str, dict[str, AxisRange]]:
    """The values of --axis.

    Raises:
        UsageError: not of the form.
    """
    from trtcompress_graph.axes import AxisRange
    from trtcompress_graph.errors import UsageError

    found: dict[str, dict[str, AxisRange]] = {}
    for text in texts:
        name, _, lengths = text.rpartition("=")
        tensor, _, axis_name = name.rpartition(".")
        numbers = lengths.split(",")
        if not tensor or not axis_name or len(numbers) not in (1, 3) or not all(n.strip().isdigit() for n in numbers):
            raise UsageError(f"'{text}' is not INPUT.AXIS=MIN,OPT,MAX", where="--axis", hint="--axis x.batch=1,8,16")
        least, usual, greatest = (int(n) for n in (numbers * 3 if len(numbers) == 1 else numbers))
        if not 1 <= least <= usual <= greatest:
            raise UsageError(
                f"'{lengths}': 1 <= MIN <= OPT <= MAX", where=f"--axis {name}", hint=f"such as --axis {name}=1,8,16"
            )
        found.setdefault(tensor, {})[axis_name] = AxisRange(least, usual, greatest)
    return found


def given_states() -> Mapping[str, str]:
    """What the command was given as --state."""
    found: Mapping[str, str] = click.get_current_context().meta.get(STATE, {})
    return found


def refuse_idle(needed: str, there: bool, given: Mapping[str, object]) -> None:
    """Options that would do nothing are refused.

    Args:
        needed: the option that they belong to.
        there: whether it was given.
        given: their values, by name; empty ones were not given.

    Raises:
        UsageError: one was given alone.
    """
    from trtcompress_graph.errors import UsageError

    for option, value in given.items():
        if value and not there:
            hint = f"add {needed}, or leave {option} out"
            raise UsageError(f"{option} does nothing without {needed}", where=option, hint=hint)


def data_ref(source: str, count: int | None) -> DataRef:
    """Samples that a single command reads, relative to where it is called; sequences where it was given --state."""
    from ..stage import DataRef

    return DataRef(source, Path.cwd(), "", count, None, given_states())


def pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """The values of --state.

    Raises:
        UsageError: not of the form.
    """
    from trtcompress_graph.errors import UsageError

    found: dict[str, str] = {}
    for text in texts:
        name, _, output = text.partition("=")
        if not name or not output:
            raise UsageError(f"'{text}' is not INPUT=OUTPUT", where="--state", hint="--state state=stateN")
        found[name] = output
    return found


def read_ranges_of(model: Model, file: str) -> Ranges:
    """The ranges in a file, which must be of this very model; TensorRT's calibration.cache does too.

    Raises:
        ModelError: the model is quantized already, as which it has no ranges.
        DataError: they are of another.
    """
    from trtcompress_calibration.placement import already_quantized
    from trtcompress_calibration.refusals import refuse_quantized
    from trtcompress_calibration.trt_cache import is_cache, read_cache
    from trtcompress_graph.errors import DataError
    from trtcompress_graph.ranges import read_ranges

    if is_cache(Path(file)):
        return read_cache(Path(file), model)
    ranges = read_ranges(Path(file))
    if ranges.model_sha256 != model.digest:
        refuse_quantized(already_quantized(model), model)
        hint = f"trtcompress calibrate {model.path} --data ... -o {file}"
        raise DataError("these ranges were measured on another model", where=file, hint=hint)
    return ranges


def written(model: Model, as_json: bool) -> None:
    """Say what was written."""
    if as_json:
        from ..outputs import model_file
        from .output import print_json

        print_json(model_file(model))
    else:
        say(f"wrote {model.path} (SHA-256 {model.digest[:16]})")
