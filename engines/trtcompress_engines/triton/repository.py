"""A Triton model repository: each model's folder appears whole, or not at all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from trtcompress_graph.axes import Axes, plain_axes
from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import MissingPathError, UsageError
from trtcompress_graph.load import copy_model
from trtcompress_graph.target import Engine, Target

from ..kit.device import streaming
from .aside import put_folder, repository_errors
from .batching import batching
from .bound import as_bound
from .config import Serving, config_text
from .datatypes import check_types
from .formats import Layout, layout
from .options import TritonOptions
from .plan_tensors import write_tensors
from .ranged import parameters

VERSION = "1"
SERVED = Path(__file__).parent / "served"
_ELSEWHERE = {"streaming.py": Path(streaming.__file__)}
"""What is copied beside a model."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


def write_repository(
    engine: Engine,
    target: Target,
    repository: Path,
    *,
    name: str,
    format: str,
    axes: Axes,
    options: TritonOptions,
) -> Path:
    """Write `<repository>/<name>/config.pbtxt` and `<repository>/<name>/1/` with the model and its digest.

    A model of that name that is there is replaced in one step; other models are left alone.

    Args:
        engine: what to serve.
        target: what it was built for.
        repository: folder of models; made if it is missing.
        name: under which clients ask for the model.
        format: `triton` or `triton-python`.
        axes: ranges of the dynamic axes.
        options: the user's choices.

    Returns:
        The model's folder.

    Raises:
        UsageError: unknown format or unusable name.
        CompileError: the engine cannot be served so.
        StoreError: the folder cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot be the name of a served model",
            where="name",
            hint="use letters, digits, '_', '-' and '.', and no '.' or '-' at the start",
        )
    axes = plain_axes(axes)
    chosen = layout(engine, format, options)
    graph = as_bound(engine)
    batch = batching(graph, axes, options)
    check_types((*graph.inputs, *graph.outputs), chosen.serving.backend)
    hint = "free some space, or choose another folder with --out"
    with repository_errors(repository / name, hint), put_folder(repository / name) as folder:
        model = _write_version(engine, chosen, folder / VERSION)
        plan = model.suffix == ".plan"
        write_digests(model, *([write_tensors(model, graph, batch.greatest)] if plan else []))
        ranges = parameters(graph, axes, batch.max_size > 0)
        serving = _described(engine, target, chosen.serving, ranges)
        text = config_text(name, graph, serving, batch, axes, options)
        (folder / "config.pbtxt").write_text(text, encoding="ascii")
    return repository / name


def _write_version(engine: Engine, chosen: Layout, folder: Path) -> Path:
    folder.mkdir()
    model = folder / chosen.serving.model_file
    if model.suffix == ".onnx":
        copy_model(engine.graph, model)
    elif engine.path.is_file():
        shutil.copyfile(engine.path, model)
    else:
        raise MissingPathError("the engine is gone", where=str(engine.path), hint="compile it again")
    for file in chosen.code:
        shutil.copyfile(_ELSEWHERE.get(file, SERVED / file), folder / file)
    return model


def write_digests(model: Path, *others: Path) -> None:
    """Write the digest of a model, and of others that lie beside it."""
    lines = [f"{files_digest([path])}  {path.name}\n" for path in (model, *others)]
    checksum(model).write_text("".join(lines), encoding="utf-8")


def checksum(model: Path) -> Path:
    """File with the digest of a model, in its first line, for `sha256sum -c`.

    It does not stand in `config.pbtxt`, which stays the same when a plan is built again with other bytes.
    """
    return model.with_name(f"{model.name}.sha256")


def _described(engine: Engine, target: Target, serving: Serving, ranges: Mapping[str, str]) -> Serving:
    """The layout's parameters, and what tells later which engine this is and how long its axes may be."""
    origin = {
        "encoding": engine.encoding,
        "graph_sha256": engine.graph.digest,
        "model_file": serving.model_file,
        "target": target.name,
    }
    return replace(serving, parameters={**origin, **ranges, **serving.parameters})
