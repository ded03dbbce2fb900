"""What calibration measured, and its file `ranges.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

from .errors import DataError, MissingPathError

VERSION = 3
"""Of the file. Older ones are read too: version 1 named method and samples once for all tensors, 2 has no `bulk`."""

_MADE_BY = "make it with: trtcompress calibrate"


@dataclass(frozen=True, slots=True)
class TensorRange:
    """Values that one tensor took over the calibration samples.

    Attributes:
        min: least value seen.
        max: greatest value seen.
        threshold: what the method keeps: values beyond ±threshold are clipped. None where only the
            extremes were read (the tensor is not a candidate for INT8).
        clipped: share of the values beyond ±threshold, 0 to 1.
        method: how the threshold was chosen; empty where there is none.
        samples: how many it was chosen from.
        bulk: magnitude that three in five of the values do not exceed, without those that are zero (or under 1/4096 of
            the greatest); 0 where not known.
    """

    FINGERPRINT: ClassVar = ("min", "max", "threshold", "clipped", "bulk")
    """Where the numbers are from changes nothing that is made of them."""

    min: float
    max: float
    threshold: float | None
    clipped: float
    method: str = ""
    samples: int = 0
    bulk: float = 0.0

    @property
    def amax(self) -> float:
        """Greatest absolute value seen."""
        return max(abs(self.min), abs(self.max))


@dataclass(frozen=True, slots=True)
class Ranges:
    """Ranges of all tensors that were read, for the model with digest `model_sha256`.

    Method and samples are those of the calibration; a tensor that was edited or taken from elsewhere names its own.
    """

    version: int
    model_sha256: str
    method: str
    samples: int
    tensors: Mapping[str, TensorRange]

    def text(self) -> str:
        """Text of `ranges.json`; equal ranges give equal text."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    def write(self, path: Path) -> None:
        """Write `ranges.json`."""
        path.write_text(self.text(), encoding="utf-8")


def read_ranges(path: Path) -> Ranges:
    """Read `ranges.json`.

    Raises:
        MissingPathError: no such file.
        DataError: not JSON of this form, or a range that is none: not finite, min above max, a threshold that is not
            greater than 0, a share beyond 0 to 1.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        _check_keys(raw, Ranges, str(path))
        for name, held in _mapping(raw["tensors"], f"{path}: tensors").items():
            _check_keys(held, TensorRange, f"{path}: tensor '{name}'")
        if raw["version"] == 1:
            raw = _of_version_1(raw)
        if raw["version"] == 2:
            raw = {**raw, "version": VERSION}
        tensors = {name: TensorRange(**value) for name, value in raw.pop("tensors").items()}
        ranges = Ranges(**raw, tensors=tensors)
    except FileNotFoundError:
        raise MissingPathError("no such file", where=str(path), hint=_MADE_BY) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"this is not a ranges file: {error}", where=str(path), hint=_MADE_BY) from error
    if ranges.version != VERSION:
        raise DataError(f"ranges of version {ranges.version}; this release reads 1 to {VERSION}", where=str(path))
    for name, value in tensors.items():
        wrong = _wrong(value)
        if wrong:
            raise DataError(wrong, where=f"{path}: tensor '{name}'", hint=_MADE_BY)
    return ranges


def _check_keys(raw: object, kind: type[Ranges | TensorRange], where: str) -> None:
    """Every key that is needed is there, and none that is not known.

    Raises:
        DataError: naming the key.
    """
    held, known = _mapping(raw, where), {field.name: field for field in fields(kind)}
    for name in held:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"the keys are: {', '.join(known)}"
            raise DataError(f"unknown key '{name}'", where=where, hint=hint)
    for name, field in known.items():
        if field.default is MISSING and name not in held:
            raise DataError(f"the key '{name}' is missing", where=where, hint=_MADE_BY)


def _mapping(raw: object, where: str) -> dict[str, Any]:
    if isinstance(raw, dict):
        return raw
    raise DataError("this is not a ranges file: keys and values are wanted here", where=where, hint=_MADE_BY)


def _wrong(held: TensorRange) -> str:
    """What makes a range none; empty where it is one."""
    numbers = [held.min, held.max, held.clipped, held.bulk, *([] if held.threshold is None else [held.threshold])]
    if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
        return "a range that is not a finite number"
    if held.min > held.max:
        return f"min {held.min:g} is greater than max {held.max:g}"
    if held.threshold is not None and held.threshold <= 0:
        return f"the threshold {held.threshold:g} is not greater than 0"
    if not 0 <= held.clipped <= 1:
        return f"clipped {held.clipped:g} is no share from 0 to 1"
    if held.bulk < 0:
        return f"bulk {held.bulk:g} is less than 0"
    return ""


def _of_version_1(raw: dict[str, Any]) -> dict[str, Any]:
    """The same content as the present version holds it: each tensor has the method and samples of the file."""

    def told(value: dict[str, Any]) -> dict[str, Any]:
        method = raw["method"] if value["threshold"] is not None else ""
        return {"method": method, "samples": raw["samples"], **value}

    return {**raw, "version": VERSION, "tensors": {name: told(value) for name, value in raw["tensors"].items()}}
