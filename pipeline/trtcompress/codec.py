"""Frozen values as JSON and back; paths are kept relative to a folder, so that artifacts can move."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

_PATH = "$path"


def encode(value: Any, root: Path) -> Any:
    """JSON value of a dataclass, settings model, mapping, tuple or scalar; paths relative to `root`."""
    if isinstance(value, Path):
        return {_PATH: os.path.relpath(value, root)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {field.name: encode(getattr(value, field.name), root) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(inner, root) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(inner, root) for inner in value]
    return value


def decode(kind: Any, value: Any, root: Path) -> Any:
    """Value of the type `kind` from its JSON.

    Raises:
        pydantic.ValidationError: the JSON is not of that type.
    """
    return TypeAdapter(kind).validate_python(_with_paths(value, root))


def _with_paths(value: Any, root: Path) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_PATH}:
            return Path(os.path.normpath(root / value[_PATH]))
        return {key: _with_paths(inner, root) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_paths(inner, root) for inner in value]
    return value


def identity(value: Any) -> Any:
    """JSON value without paths: what a fingerprint sees. Digests stand for contents.

    A class that names some of its fields in `FINGERPRINT` counts by these alone. The order of a mapping counts: an
    axis of the config without an index stands at its place in the mapping.
    """
    if isinstance(value, Path):
        return None
    if isinstance(value, (BaseModel, str, int, float, bool, type(None))):
        return encode(value, Path())
    if is_dataclass(value):
        names = getattr(value, "FINGERPRINT", None) or [field.name for field in fields(value)]
        return {name: identity(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return [[str(key), identity(inner)] for key, inner in value.items()]
    return [identity(inner) for inner in value]


def paths_in(value: Any, root: Path) -> list[Path]:
    """Every path that an encoded value names."""
    if isinstance(value, dict):
        if value.keys() == {_PATH}:
            return [Path(os.path.normpath(root / value[_PATH]))]
        return [path for inner in value.values() for path in paths_in(inner, root)]
    if isinstance(value, list):
        return [path for inner in value for path in paths_in(inner, root)]
    return []
