"""What every engine leaves beside it: `reproduce.sh` (trtexec) and `reproduce.py` (TensorRT's bindings alone)."""

from __future__ import annotations

import inspect
import pprint
import shlex
from dataclasses import asdict
from pathlib import Path

from trtcompress_graph.digest import files_digest
from trtcompress_graph.model import Model
from trtcompress_graph.protos import external_locations

from ..scripts import refit as refit_script
from ..scripts import reproduce as python_script
from .trt_recipe import Recipe
from .trt_trtexec import as_line, lacking, trtexec

PYTHON = "reproduce.py"
SHELL = "reproduce.sh"
REFIT = "refit.py"


def write_reproduce(recipe: Recipe, graph: Model, folder: Path) -> None:
    """Write the scripts into the folder of the engine, where its caches lie already.

    They build from the graph's file beside them, and refuse files that have changed.
    """
    digests = {file.name: files_digest([file]) for file in _graph_files(graph)}
    for cache in (recipe.timing_cache, recipe.calibration_cache):
        if cache and (folder / cache).is_file():
            digests[cache] = files_digest([folder / cache])
    _write(folder / PYTHON, _python(recipe, digests))
    _write(folder / SHELL, _shell(recipe, digests))
    # The parser refits from 10.0 on
    if {"STRIP_PLAN", "REFIT"} & set(recipe.flags) and (recipe.flavour == "rtx" or recipe.release.number >= (10, 0)):
        _write(folder / REFIT, inspect.getsource(refit_script))


def _graph_files(graph: Model) -> list[Path]:
    """The file and its external data."""
    import onnx

    located = external_locations(onnx.load(graph.path, load_external_data=False))
    return [graph.path, *(graph.path.parent / location for location in sorted(located))]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def _python(recipe: Recipe, digests: dict[str, str]) -> str:
    text = inspect.getsource(python_script)
    for name, value in (("RECIPE: dict[str, Any]", asdict(recipe)), ("DIGESTS: dict[str, str]", digests)):
        text = text.replace(f"{name} = {{}}\n", f"{name} = {pprint.pformat(value, width=110, sort_dicts=False)}\n", 1)
    return text


def _shell(recipe: Recipe, digests: dict[str, str]) -> str:
    lines = [
        "#!/bin/sh",
        f"# Builds {recipe.plan} again with {recipe.release.title}, from the files beside this one.",
        "set -eu",
        'cd "$(dirname "$0")"',
        'PATH="$PATH:/usr/src/tensorrt/bin"  # where JetPack has trtexec',
        *(f"echo {shlex.quote(f'{digest}  {name}')} | sha256sum -c -" for name, digest in digests.items()),
    ]
    if why := lacking(recipe):
        return "\n".join([*lines, f"# {why}", f"exec python3 {PYTHON}"]) + "\n"
    command = as_line(trtexec(recipe))
    if recipe.timing_cache in digests:  # trtexec writes what it measures into the file
        lines.append(f"cp {recipe.timing_cache} own.{recipe.timing_cache}")
        command = command.replace(f"={recipe.timing_cache}", f"=own.{recipe.timing_cache}")
    if recipe.calibration_cache:
        lines += _own_header(recipe.calibration_cache)
        command = command.replace(f"--calib={recipe.calibration_cache}", f"--calib=own.{recipe.calibration_cache}")
    return "\n".join([*lines, f"exec {command}"]) + "\n"


def _own_header(cache: str) -> list[str]:
    """TensorRT ignores a cache of another release: the number is that of trtexec's own banner.

    Where it tells none, TENSORRT=8.5.2 names it.
    """
    return [
        'command -v trtexec >/dev/null || { echo "trtexec: not found" >&2; exit 127; }',
        r"number=$(trtexec --help 2>&1 | sed -n 's/.*\[TensorRT v\([0-9]*\)\].*/\1/p' | head -n 1)",
        'if [ -z "$number" ] && [ -n "${TENSORRT:-}" ]; then',
        "  number=$(echo \"$TENSORRT\" | awk -F. '{ print $1 * ($1 >= 10 ? 10000 : 1000) + $2 * 100 + $3 }')",
        "fi",
        '[ -n "$number" ] || { echo "error: trtexec does not tell its release: name it, TENSORRT=8.5.2" >&2; exit 2; }',
        f'sed "1s/^TRT-[0-9]*/TRT-$number/" {cache} > own.{cache}',
    ]
