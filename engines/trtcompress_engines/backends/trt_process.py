"""Runs the TensorRT worker in a process of its own, and turns what went wrong there into our errors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from trtcompress_graph.errors import CompileError
from trtcompress_graph.load import load_ir
from trtcompress_graph.model import Model

from ..sparsity import sparse_weights
from ..tensorrt_release import TITLES, Flavour, Release, installed
from .trt_recipe import Recipe
from .trt_worker import Request, Result

WORKER = "trtcompress_engines.backends.trt_worker"


def probe(flavour: Flavour) -> Result:
    """Version, compute capabilities and GPUs, from a process that has loaded TensorRT.

    Raises:
        CompileError: it cannot be loaded.
    """
    return _run(Request(flavour), where=TITLES[flavour])


def release_here(flavour: Flavour) -> Release:
    """The release that is installed here.

    Raises:
        CompileError: it cannot be loaded.
    """
    return installed(flavour) or Release(flavour, probe(flavour).version)


def build_plan(graph: Model, recipe: Recipe, folder: Path, batches: Path | None = None) -> Result:
    """Build the graph as the recipe says; plan and caches lie in the folder.

    Raises:
        CompileError: parser or builder refuse; the ONNX node is named.
    """
    refuse_branches(graph)
    request = Request(
        recipe.flavour,
        onnx=str(graph.path),
        folder=str(folder),
        recipe=asdict(recipe),
        batches=str(batches) if batches else "",
    )
    result = _run(request, where=str(graph.path))
    for lock in folder.glob("*.lock"):  # of Polygraphy
        lock.unlink()
    if result.error:
        where = f"{graph.path}: node '{result.node}'" if result.node else str(graph.path)
        tight = recipe.workspace_mb is not None and "workspace" in result.error
        raise CompileError(
            f"{TITLES[recipe.flavour]} {result.version} refuses the graph: {result.error}",
            where=where,
            hint=f"tensorrt.workspace_mb is {recipe.workspace_mb}: raise it, or leave it out" if tight else "",
        )
    return replace(result, details={**result.details, **told_of_sparse(graph, recipe)})


def told_of_sparse(graph: Model, recipe: Recipe) -> dict[str, str]:
    """For the report: whether sparse kernels may be taken, and for how many weights."""
    if "SPARSE_WEIGHTS" not in recipe.flags:
        return {}
    return {"sparse_weights": f"{len(sparse_weights(graph.path))} are 2:4; sparse kernels may be taken"}


def refuse_branches(graph: Model) -> None:
    """TensorRT takes an `If` only where both branches give tensors of as many axes; its builder does not say which.

    Raises:
        CompileError: naming the first that it will not take.
    """
    from trtcompress_graph.branches import uneven_branches

    uneven = uneven_branches(load_ir(graph))
    if uneven:
        more = f", as those of {len(uneven) - 1} more" if len(uneven) > 1 else ""
        raise CompileError(
            f"TensorRT takes no If whose branches give tensors of different rank{more}",
            where=f"{graph.path}: node '{uneven[0]}'",
            hint="fix the inputs that it depends on: trtcompress simplify M.onnx --fix INPUT=VALUE -o S.onnx; "
            "in a build: --set model.fix.INPUT=VALUE",
        )


def _run(request: Request, where: str) -> Result:
    # Beside the plan, so that whoever removes the plan's folder after an interruption removes all
    place = request.folder or None
    with tempfile.TemporaryDirectory(prefix="trtcompress-", dir=place) as folder:
        asked, told = Path(folder, "request.json"), Path(folder, "result.json")
        asked.write_text(json.dumps(asdict(request)), encoding="utf-8")
        command = [sys.executable, "-m", WORKER, str(asked), str(told)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode == 0 and told.exists():
            return Result(**json.loads(told.read_text(encoding="utf-8")))
    raise CompileError(f"{TITLES[request.flavour]} {_death(done.returncode, done.stderr)}", where=where)


def _death(code: int, stderr: str) -> str:
    last = stderr.strip().splitlines()[-1:] or ["it said nothing"]
    if code < 0:
        return f"crashed ({signal.Signals(-code).name}); its last words: {last[0]}"
    return f"failed: {last[0]}"
