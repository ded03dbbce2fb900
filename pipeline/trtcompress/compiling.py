"""One model to one engine, for the compile stage and for `trtcompress compile`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from trtcompress_graph.axes import Axes
from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import MissingPathError, ModelError
from trtcompress_graph.load import copy_model, read_model
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

from .builder import DEFAULT, BuilderRef
from .codec import decode, encode
from .files import write_text
from .profiles import profiles

if TYPE_CHECKING:
    from trtcompress_engines.backend import ImplicitScales

ENGINE = "engine.json"
_AGAIN = "make it again with: trtcompress compile, or trtcompress build"


def compile_model(
    model: Model,
    target: Target,
    encoding: str,
    axes: Axes,
    out: Path,
    *,
    threads: int = 0,
    builder: BuilderRef = DEFAULT,
    implicit: ImplicitScales | None = None,
    tf32: bool = False,
) -> Engine:
    """Build an engine into the folder `out`, with the portable graph beside it.

    Args:
        model: the graph.
        target: the device.
        encoding: name of the encoding of the graph.
        axes: ranges of its dynamic axes.
        out: the folder.
        threads: of a CPU engine; 0 is one a core.
        builder: what is asked of TensorRT's builder.
        implicit: float model and scales, where they do not stand in the graph.
        tf32: let float32 be multiplied as TF32, where the card has it.

    Raises:
        CompileError: the backend refuses the graph.
        UsageError: a dynamic axis has no range.
    """
    from trtcompress_engines.backend import CompileOptions, backend_for

    shapes = [] if target.how == "cpu" else [profiles(model, part) for part in builder.parts(axes)]
    options = CompileOptions(
        profiles=shapes[0] if shapes else {},
        threads=threads,
        more_profiles=tuple(shapes[1:]),
        tensorrt=builder.options,
        implicit=implicit,
        tf32=tf32,
    )
    out.mkdir(parents=True, exist_ok=True)
    graph = copy_model(model, out / "model.onnx")
    return backend_for(target).compile(graph, target, encoding, options, out)


def compile_folder(
    model: Model, target: Target, axes: Axes, folder: Path, *, threads: int = 0, builder: BuilderRef = DEFAULT
) -> Engine:
    """Build an engine of a graph as it is, with its `engine.json`; other files in the folder stay.

    Raises:
        CompileError: the backend refuses the graph; then the folder is as it was.
        UsageError: a dynamic axis has no range.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as aside:
        engine = compile_model(model, target, "as-given", axes, Path(aside), threads=threads, builder=builder)
        folder.mkdir(exist_ok=True)
        (folder / ENGINE).unlink(missing_ok=True)  # from here on until it is written anew there is no engine
        for path in sorted(Path(aside).iterdir()):
            path.replace(folder / path.name)
    graph = replace(engine.graph, path=folder / engine.graph.path.name)
    placed = replace(engine, path=folder / engine.path.name, graph=graph)
    write_engine(placed, folder)
    return placed


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
        ModelError: it is damaged, names a file outside `within`, or a file is not the one that was built.
    """
    note = folder / ENGINE
    try:
        engine: Engine = decode(Engine, json.loads(note.read_text(encoding="utf-8")), folder.resolve())
    except FileNotFoundError:
        raise MissingPathError(
            "there is no engine here", where=str(note), hint="make one with: trtcompress compile, or trtcompress build"
        ) from None
    except ValueError as error:
        raise ModelError("this file is damaged", where=str(note), hint=_AGAIN) from error
    for path in (note, engine.path, engine.graph.path):
        if not path.resolve().is_relative_to(within.resolve()):
            raise ModelError(f"it names a file outside its folder: {path}", where=str(note), hint=_AGAIN)
        if not path.is_file():
            raise MissingPathError("the engine is incomplete", where=str(path), hint=_AGAIN)
    if read_model(engine.graph.path).digest != engine.graph.digest:
        raise ModelError("this is not the graph that was built", where=str(engine.graph.path), hint=_AGAIN)
    if engine.path != engine.graph.path and _engine_digest(engine.path) != engine.digest:
        raise ModelError("this is not the engine that was built", where=str(engine.path), hint=_AGAIN)
    return engine


def _engine_digest(path: Path) -> str:
    """Of the engine and its external data, `<name>.data`."""
    return files_digest(sorted(file for file in path.parent.iterdir() if file.name.startswith(path.name)))
