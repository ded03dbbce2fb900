"""Runs the TensorRT worker in a process of its own, and turns what went wrong there into our errors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from trtcompress_graph.errors import CompileError
from trtcompress_graph.load import load_ir
from trtcompress_graph.model import Model

from ..backend import CompileOptions
from ..sparsity import sparse_weights
from .trt_load import Flavour
from .trt_worker import Request, Result

WORKER = "trtcompress_engines.backends.trt_worker"
TITLES: dict[Flavour, str] = {"rtx": "TensorRT for RTX", "classic": "TensorRT"}


def probe(flavour: Flavour) -> Result:
    """Version, compute capabilities and GPUs, from a process that has loaded TensorRT.

    Raises:
        CompileError: it cannot be loaded.
    """
    return _run(Request(flavour), where=TITLES[flavour])


def build_plan(
    flavour: Flavour,
    graph: Model,
    plan: Path,
    options: CompileOptions,
    compute_capabilities: Sequence[tuple[int, int]] = (),
) -> Result:
    """Build the graph into the file `plan`.

    Raises:
        CompileError: a dynamic input has no profile, or parser or builder refuse; the ONNX node is named.
    """
    refuse_branches(graph)
    sparse = sparse_weights(graph.path)
    request = Request(
        flavour,
        onnx=str(graph.path),
        plan=str(plan),
        compute_capabilities=[list(capability) for capability in compute_capabilities],
        profiles=_profiles(graph, options),
        sparse=bool(sparse),
    )
    result = _run(request, where=str(graph.path))
    if result.error:
        where = f"{graph.path}: node '{result.node}'" if result.node else str(graph.path)
        raise CompileError(f"{TITLES[flavour]} {result.version} refuses the graph: {result.error}", where=where)
    told = {"sparse_weights": f"{len(sparse)} are 2:4; sparse kernels may be taken"} if sparse else {}
    return replace(result, details={**result.details, **told})


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


def _profiles(graph: Model, options: CompileOptions) -> dict[str, list[list[int]]]:
    """Least, usual and greatest shape of each input, where at least one is dynamic."""
    if all(isinstance(dim, int) for spec in graph.inputs for dim in spec.shape):
        return {}
    found: dict[str, list[list[int]]] = {}
    for spec in graph.inputs:
        where = f"{graph.path}: input '{spec.name}'"
        dynamic = [dim for dim in spec.shape if isinstance(dim, str)]
        fixed = tuple(dim for dim in spec.shape if isinstance(dim, int))
        shapes = options.profiles.get(spec.name, (fixed, fixed, fixed) if not dynamic else None)
        if shapes is None:
            raise CompileError(
                f"the dynamic axis '{dynamic[0]}' has no range, and TensorRT needs one",
                where=where,
                hint="give its least, usual and greatest length: "
                f"--set 'model.inputs.{spec.name}.{dynamic[0]}=[1, 8, 16]'",
            )
        for shape in shapes:
            if len(shape) != len(spec.shape) or any(
                length != dim for length, dim in zip(shape, spec.shape, strict=True) if isinstance(dim, int)
            ):
                raise CompileError(f"the profile's shape {shape} does not fit {spec.shape}", where=where)
        if not all(0 < low <= usual <= high for low, usual, high in zip(*shapes, strict=True)):
            raise CompileError(f"least, usual and greatest shape do not rise: {shapes}", where=where)
        found[spec.name] = [list(shape) for shape in shapes]
    return found


def _run(request: Request, where: str) -> Result:
    # Beside the plan, so that whoever removes the plan's folder after an interruption removes all
    place = Path(request.plan).parent if request.plan else None
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
