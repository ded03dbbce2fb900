"""The encodings of `encodings.toml`, and which of them a target takes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.target import Target


@cache
def encodings() -> Mapping[str, Encoding]:
    """Every encoding by its name, in the order of the file."""
    text = files("trtcompress_engines").joinpath("encodings.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    return MappingProxyType({name: _encoding(name, tables) for name in tables})


def encoding_for(target: Target, precision: Literal["int8", "float"], *, vnni: bool, amx: bool = False) -> Encoding:
    """The encoding that `target` takes.

    Args:
        target: the device.
        precision: `int8`, or `float` for the best type that is not quantized.
        vnni: whether the CPU multiplies u8 by s8 into 32 bits; only asked for a CPU target.
        amx: whether it multiplies matrices of them.

    Returns:
        For a GPU that has no INT8 engines (SM75) the FP16 encoding, whatever was asked.
    """
    int8 = precision == "int8" and target.int8
    if target.how == "cpu":
        kind = "cpu-int8-amx" if amx else "cpu-int8" if vnni else "cpu-int8-r7"
        name = kind if int8 else "cpu-fp32"
    else:
        name = "trt-int8" if int8 else "trt-fp16"
    return encodings()[name]


def _encoding(name: str, tables: Mapping[str, Mapping[str, Any]]) -> Encoding:
    table = dict(tables[name])
    if "like" in table:
        table = {**tables[table.pop("like")], **table}
    table.pop("like", None)
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return Encoding(name, **fields)
