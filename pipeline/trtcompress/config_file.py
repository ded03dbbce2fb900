"""Reads a config file: YAML with `${NAME}` and `--set` overrides; errors name file, line and key."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from trtcompress_graph.errors import ConfigError, MissingPathError

from .config import BuildConfig, Loaded
from .overrides import KeyPath, override_key

_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read and check a config.

    Args:
        path: a YAML file.
        overrides: `key.subkey=value` with a YAML value; they win over the file.

    Raises:
        MissingPathError: no such file.
        ConfigError: not YAML, an unknown key, a wrong type, an undefined variable.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MissingPathError("no such config file", where=str(path), hint=_instead(path)) from None
    except UnicodeDecodeError:
        raise ConfigError("this is not a text file", where=str(path), hint="a config is YAML") from None
    raw, lines = parse_yaml(text, str(path))
    return Loaded(config=check_config(raw, overrides, file=str(path), lines=lines), base=path.resolve().parent)


def _instead(path: Path) -> str:
    """The config of the nearest name in that folder, or what to write."""
    there = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, there, n=1, cutoff=0.5)
    return f"did you mean {path.with_name(near[0])}?" if near else "a config is YAML; README.md shows one to begin with"


def parse_yaml(text: str, file: str) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Values and the line of each key (from 1).

    Raises:
        ConfigError: not YAML, not a mapping, or a key that is there twice.
    """
    lines: dict[KeyPath, int] = {}
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _mark(node, (), lines, file)
        raw = loader.construct_document(node) if node is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}" if mark is not None else file
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(
            f"this is not YAML: {problem}",
            where=place,
            hint="look for a bracket or quote that is not closed, a tab, or an indent that differs from its neighbours",
        ) from None
    except ValueError as error:  # what looks like a date or a number and is none
        raise ConfigError(f"a value cannot be read: {error}", where=file, hint="put quotes around it") from None
    except RecursionError:  # by an alias to what it stands in, too
        raise ConfigError("this is nested too deeply", where=file, hint="trtcompress schema") from None
    if not isinstance(raw, dict):
        raise ConfigError("a config is a mapping of keys to values", where=file, hint="trtcompress schema")
    return raw, lines


def _mark(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], file: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            if inner in lines:
                raise ConfigError(
                    "this key is there twice", where=f"{file}:{key.start_mark.line + 1}: {_dotted(inner)}"
                )
            lines[inner] = key.start_mark.line + 1
            _mark(value, inner, lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _mark(value, (*path, index), lines, file)


def check_config(
    raw: Mapping[str, Any], overrides: Sequence[str], *, file: str, lines: Mapping[KeyPath, int]
) -> BuildConfig:
    """Apply the overrides, expand variables and validate.

    Raises:
        ConfigError: with `file:line: key` and the nearest right name.
    """
    merged: dict[str, Any] = dict(raw)
    from_command_line: set[KeyPath] = set()
    for override in overrides:
        from_command_line.add(override_key(merged, override))

    def where(path: KeyPath) -> str:
        prefixes = [path[:end] for end in range(len(path), 0, -1)]
        if any(prefix in from_command_line for prefix in prefixes):
            return f"--set {_dotted(path)}"
        if path not in lines and any(override[: len(path)] == path for override in from_command_line):
            return f"--set {_dotted(path)}"  # the section is there for an override's sake
        for prefix in prefixes:
            if prefix in lines:
                return f"{file}:{lines[prefix]}: {_dotted(path)}"
        return f"{file}: {_dotted(path)}" if path else file

    expanded = _expand(merged, (), where)
    try:
        return BuildConfig.model_validate(expanded)
    except ValidationError as error:
        raise _explain(error, where) from None


def _expand(value: Any, path: KeyPath, where: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expand(inner, (*path, str(key)), where) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner, (*path, index), where) for index, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{value} is not a finite number", where=where(path))
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(
                f"the environment variable {name} is not set", where=where(path), hint=f"export {name}=..."
            )
        return os.environ[name]

    return _VARIABLE.sub(variable, value)


def _explain(error: ValidationError, where: Any) -> ConfigError:
    # A key that is wrongly written is missing, too: what is there is told before what is not
    first = min(error.errors(include_url=False), key=lambda found: found["type"] == "missing")
    path: KeyPath = tuple(first["loc"])
    what, hint = first["msg"].removeprefix("Value error, "), "trtcompress schema prints what a config can hold"
    if first["type"] == "extra_forbidden":
        names = _fields_at(path[:-1])
        near = difflib.get_close_matches(str(path[-1]), names, n=1, cutoff=0.5)
        what = f"unknown key '{path[-1]}'"
        elsewhere = _ELSEWHERE.get(str(path[-1])) if path[0] in ("recover", "qat") and len(path) == 2 else None
        hint = f"did you mean '{near[0]}'?" if near else f"known keys here: {', '.join(names)}"
        hint = elsewhere or hint
    elif first["type"] == "missing" and isinstance(path[-1], int):
        path, what = path[:-1], f"{list(first['input'])} holds too few values"
        hint = (
            "three are needed, the least, the usual and the greatest length: [1, 8, 16]"
            if path[:2] == ("model", "inputs")
            else hint
        )
    elif first["type"] == "string_pattern_mismatch" and path[-1] == "version":
        what, hint = f"'{first['input']}' is no version of TensorRT", 'two numbers or more, such as "10.3"'
    elif first["type"] == "missing":
        what, hint = f"the key '{path[-1]}' is needed", _MISSING_HINTS.get(path, hint)
    elif first["type"] == "literal_error":
        expected = re.findall(r"'([^']+)'", first["msg"])
        near = difflib.get_close_matches(str(first["input"]), expected, n=1, cutoff=0.4)
        what = f"'{first['input']}' is not one of: {', '.join(expected)}"
        meant = [word for word in _MEANT.get(str(first["input"]).lower(), ()) if word in expected]
        for word in (meant or near)[:1]:
            hint = f"did you mean '{word}'?" + (" It is FP16 on GPUs and FP32 on CPUs" if word == "float" else "")
    return ConfigError(what, where=where(path), hint=hint)


_MEANT = {"fp16": ("float", "16-mixed"), "half": ("float", "16-mixed"), "fp32": ("float", "32")}
"""What is meant by words that others use, for targets and for trainings."""


_ELSEWHERE = {
    "teacher": "leave it out: in a build the model before the cut teaches, in qat the float model that was quantized",
    "data": "samples to train on are `data: {training: {source: ...}}`",
    "output": "leave it out: a build has its own folder",
    "metric": "metrics of a build are `metric: [...]`, beside this section",
    "qat": "training under quantization is a section of its own, `qat: true`",
}
"""Options of `trtcompress recover` that a config says elsewhere, or not at all."""


_MISSING_HINTS: Mapping[KeyPath, str] = {
    ("data",): "INT8 needs samples: add `data: {calibration: {source: ...}}`, or give --data",
    ("model",): "add `model: {source: m.onnx}` or `model: {source: 'package.module:function'}`",
    ("name",): "add `name: ...`; it names the build folder and the served model",
}


def _fields_at(path: KeyPath) -> list[str]:
    """Names of the fields of the settings model that stands at `path`."""
    model: type[BaseModel] = BuildConfig
    for part in path:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        inner = _model_in(model.model_fields[part].annotation)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _dotted(path: KeyPath) -> str:
    return ".".join(f'"{part}"' if "." in str(part) else str(part) for part in path)
