"""The encodings of `encodings.toml`, and which of them a target takes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.errors import UsageError
from trtcompress_graph.target import Target

from .tensorrt_release import release_of

FORMATS = ("bf16", "fp8", "weight-int8", "weight-int4", "tables")
"""Beside `int8` and `float`: what a target takes is the entry `cpu-FORMAT` or `trt-FORMAT`."""

ALIASES = {"w8": "weight-int8", "w4": "weight-int4", "int4": "weight-int4"}
"""Shorter names of precisions."""


@cache
def encodings() -> Mapping[str, Encoding]:
    """Every encoding by its name, in the order of the file."""
    text = files("trtcompress_engines").joinpath("encodings.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    return MappingProxyType({name: _encoding(name, tables) for name in tables})


def encoding_for(target: Target, precision: str, *, vnni: bool, amx: bool = False) -> Encoding:
    """The encoding that `target` takes.

    Args:
        target: the device.
        precision: `int8`, `float` for the best type that is not quantized, or one of `FORMATS` or `ALIASES`.
        vnni: whether the CPU multiplies u8 by s8 into 32 bits; only asked for a CPU target.
        amx: whether it multiplies matrices of them.

    Returns:
        For a GPU that has no INT8 engines (SM75) the FP16 encoding where `int8` was asked.

    Raises:
        UsageError: there is no such precision, or the target does not take it.
    """
    precision = ALIASES.get(precision, precision)
    if precision not in ("int8", "float"):
        return _format(target, precision)
    int8 = precision == "int8" and target.int8
    if target.how == "cpu":
        kind = "cpu-int8-amx" if amx else "cpu-int8" if vnni else "cpu-int8-r7"
        name = kind if int8 else "cpu-fp32"
    else:
        name = "trt-int8" if int8 else "trt-fp16"
    return encodings()[name]


def with_weights(
    encoding: Encoding, *, block: int | None = None, symmetric: bool | None = None, accuracy_level: int | None = None
) -> Encoding:
    """An encoding of integer weights with what a user sets of it; None leaves what `encodings.toml` says.

    Raises:
        UsageError: the encoding has no such thing, or the kernels do not take it.
    """
    given = {"block": block, "symmetric": symmetric, "accuracy_level": accuracy_level}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not changes:
        return encoding
    what = ", ".join(changes)
    if encoding.writer not in ("nbits", "block-dq"):
        hint = "they belong to weight-int8 and weight-int4, such as --target cpu:weight-int4"
        raise UsageError(f"'{encoding.name}' has no blocks of weights to set them for", where=what, hint=hint)
    if encoding.writer == "block-dq" and symmetric is False:
        raise UsageError("TensorRT takes no zero point other than 0", where="symmetric", hint="leave it out")
    if encoding.writer == "block-dq" and accuracy_level is not None:
        raise UsageError(f"'{encoding.name}' always computes in float", where="accuracy_level", hint="leave it out")
    return replace(encoding, **changes)


def precisions_of(target: Target) -> tuple[str, ...]:
    """What may stand behind the colon of a target."""
    formats = tuple(precision for precision in FORMATS if not _refusal(target, precision))
    return (*(("int8",) if target.int8 else ()), "float", *formats)


def _format(target: Target, precision: str) -> Encoding:
    refusal = _refusal(target, precision)
    if refusal:
        held = ", ".join(f"{target.name}:{name}" for name in precisions_of(target))
        raise UsageError(refusal, where=f"target '{target.name}:{precision}'", hint=f"it takes {held}")
    return encodings()[f"{_kind(target)}-{precision}"]


def _refusal(target: Target, precision: str) -> str:
    """Why a target does not take a precision; empty where it does."""
    if precision not in FORMATS:
        return f"there is no precision '{precision}'"
    encoding = encodings().get(f"{_kind(target)}-{precision}")
    if encoding is None:
        return f"ONNX Runtime has no {precision.upper()} kernels on a CPU"
    least, older = (
        encoding.compute_capability,
        [c for c in target.compute_capabilities if c < encoding.compute_capability],
    )
    if older:
        what = {"fp8": "FP8", "weight-int4": "INT4"}.get(precision, "BF16")
        return f"SM{older[0][0]}{older[0][1]} has no {what}: that came with SM{least[0]}{least[1]}"
    # Flags choose the types before TensorRT 10, and know neither INT4 nor FP8 nor BF16
    if target.how == "kit" and target.tensorrt and release_of(target).typing == "flags":
        return f"TensorRT {target.tensorrt[-1][1]} of {target.tensorrt[-1][0]} does not take the types of such a graph"
    return ""


def _kind(target: Target) -> str:
    return "cpu" if target.how == "cpu" else "trt"


def _encoding(name: str, tables: Mapping[str, Mapping[str, Any]]) -> Encoding:
    table = dict(tables[name])
    if "like" in table:
        table = {**tables[table.pop("like")], **table}
    table.pop("like", None)
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return Encoding(name, **fields)
