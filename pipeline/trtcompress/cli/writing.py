"""What a command writes: never onto what it reads, nor two files onto one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import click

_WRITTEN = ("output", "cache")
"""Parameters of files that commands write."""

_OTHER_FORMATS = (".json", ".textproto", ".prototxt", ".pbtxt", ".onnxtext", ".onnxtxt")
"""Suffixes by which ONNX takes a file for another format than protobuf."""


def keeps_inputs(command: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a command, refused where it would overwrite a file that it was given.

    Raises:
        UsageError: two of its paths are one, and it writes there.
    """

    @wraps(command)
    def checked(*args: Any, **kwargs: Any) -> Any:
        _refuse_shared(click.get_current_context())
        return command(*args, **kwargs)

    return checked


def onnx_path(value: str) -> str:
    """A path for an ONNX file.

    Raises:
        UsageError: its suffix names a text format, as which the file would be read.
    """
    from trtcompress_graph.errors import UsageError

    path = Path(value)
    if path.suffix.lower() in _OTHER_FORMATS:
        hint = f"-o {path.with_suffix('.onnx')}"
        raise UsageError(f"an ONNX file is written here, and '{path.suffix}' is none", where=f"-o {value}", hint=hint)
    return value


def _refuse_shared(ctx: click.Context) -> None:
    from trtcompress_graph.errors import UsageError

    given = list(_paths(ctx))
    for param, path in given:
        for other, second in given:
            if param is other or param.name not in _WRITTEN or path.resolve() != second.resolve():
                continue
            raise UsageError(
                f"{_called(param)} would overwrite {_called(other)}",
                where=str(path),
                hint=f"give another path: {_called(param)} {_free(path)}",
            )


def _paths(ctx: click.Context) -> Iterator[tuple[click.Parameter, Path]]:
    """Parameters that name files, and arguments, which may."""
    for param in ctx.command.params:
        value = ctx.params.get(param.name or "")
        if (
            isinstance(value, str)
            and value
            and (isinstance(param, click.Argument) or isinstance(param.type, click.Path))
        ):
            yield param, Path(value)


def _called(param: click.Parameter) -> str:
    return param.make_metavar(click.get_current_context()) if isinstance(param, click.Argument) else param.opts[0]


def _free(path: Path) -> Path:
    """A name beside it that is not taken."""
    names = (path.with_stem(f"{path.stem}.{number}") for number in range(2, 1000))
    return next(name for name in names if not name.exists())
