"""`--set key.subkey=value`: writes a value into a config that was read."""

from __future__ import annotations

import re
from typing import Any

import yaml

from trtcompress_graph.errors import UsageError

from .config import as_source, as_target

KeyPath = tuple[str | int, ...]
_KEY_PART = re.compile(r'"([^"]+)"|([^.]+)')


def override_key(raw: dict[str, Any], override: str) -> KeyPath:
    """Write one override into a config; sections on the way are copied, so that what was given stays as it is.

    Returns:
        The key that was written.

    Raises:
        UsageError: not `key=value`, not a YAML value, or no place in a list.
    """
    key, equals, text = override.partition("=")
    parts = [quoted or plain for quoted, plain in _KEY_PART.findall(key.strip())]
    if not equals or not parts:
        raise UsageError(f"'{override}' is not key=value", where="--set", hint="--set quantize.method=minmax")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UsageError(f"'{text}' is not a YAML value", where=f"--set {key}") from None
    path: list[str | int] = []
    section: Any = raw
    for part in parts[:-1]:
        path.append(_place(section, part, key))
        inner = _section(section, path[-1], parts[0])
        section[path[-1]] = inner
        section = inner
    path.append(_place(section, parts[-1], key))
    section[path[-1]] = value
    return tuple(path)


def _section(outer: Any, place: str | int, top: str) -> Any:
    """A copy of a section to write into; a short form (`model: m.onnx`) grows into what it stands for."""
    value = outer.get(place) if isinstance(outer, dict) else outer[place]
    if isinstance(value, str):
        value = as_target(value) if top == "targets" else as_source(value)
    return value.copy() if isinstance(value, (dict, list)) else {}


def _place(section: Any, part: str, key: str) -> str | int:
    if isinstance(section, dict):
        return part
    if part.isdecimal() and int(part) < len(section):
        return int(part)
    raise UsageError(
        f"'{part}' is no place in a list of {len(section)}",
        where=f"--set {key}",
        hint=f"the first is 0; or give the whole list: --set {key.partition('.')[0]}=[...]",
    )
