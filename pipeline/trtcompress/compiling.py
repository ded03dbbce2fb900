"""One model to one engine, for the compile stage and for `trtcompress compile`."""

from __future__ import annotations

import json
from pathlib import Path

from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import MissingPathError, UsageError
from trtcompress_graph.load import copy_model
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

from .codec import decode, encode
from .files import write_text
from .profiles import profiles

ENGINE = "engine.json"


def compile_model(model: Model, target: Target, encoding: str, axes: Axes, out: Path, *, threads: int = 0) -> Engine:
    """Build an engine into the folder `out`, with the portable graph beside it.

    Raises:
        CompileError: the backend refuses the graph.
        ModelError: a dynamic axis has no range.
    """
    shapes = {} if target.how == "cpu" else profiles(model, axes)
    out.mkdir(parents=True, exist_ok=True)
    graph = copy_model(model, out / "model.onnx")
    return backend_for(target).compile(graph, target, encoding, CompileOptions(shapes, threads), out)


def write_engine(engine: Engine, folder: Path) -> None:
    """Write `engine.json`, which lets `validate` and `package` take the folder alone."""
    write_text(folder / ENGINE, json.dumps(encode(engine, folder), indent=1) + "\n")


def read_engine(folder: Path, within: Path) -> Engine:
    """Read `engine.json`.

    Args:
        folder: of the engine.
        within: folder that the files it names must lie in.

    Raises:
        MissingPathError: there is no engine.json, or a file that it names is gone.
        UsageError: it is damaged, or names a file outside `within`.
    """
    note = folder / ENGINE
    try:
        engine: Engine = decode(Engine, json.loads(note.read_text(encoding="utf-8")), folder.resolve())
    except FileNotFoundError:
        raise MissingPathError(
            "there is no engine here", where=str(note), hint="make one with: trtcompress compile, or trtcompress build"
        ) from None
    except ValueError as error:
        raise UsageError("this file is damaged: build it again", where=str(note)) from error
    for path in (engine.path, engine.graph.path):
        if not path.resolve().is_relative_to(within.resolve()):
            raise UsageError(f"it names a file outside its folder: {path}", where=str(note))
        if not path.is_file():
            raise MissingPathError("the engine is incomplete: build it again", where=str(path))
    return engine
