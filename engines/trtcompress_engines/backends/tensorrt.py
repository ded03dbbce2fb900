"""Classic TensorRT: built where the card is; elsewhere the graph is checked and the word given how to build it."""

from __future__ import annotations

from pathlib import Path

from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import CompileError
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

from ..backend import CompileOptions, Runner
from ..files import staged
from ..sparsity import sparse_weights
from .trt_load import gpu_count, missing_classic, missing_rtx
from .trt_process import build_plan

_TOLD = ("int8_nodes", "fp8_nodes")

CHECKED = ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""Compute capabilities of TensorRT for RTX that take every type a graph for classic TensorRT may hold.

SM75 is not among them: TensorRT for RTX refuses FP32 products there, which classic TensorRT builds.
"""


class TensorRTBackend:
    """Engines for data-centre cards and Jetson devices."""

    name = "tensorrt"

    def missing(self) -> str:
        """Empty where TensorRT is installed and a GPU is present."""
        return missing_classic() or ("" if gpu_count() else "there is no NVIDIA GPU: build on a machine that has it")

    def compile(self, graph: Model, target: Target, encoding_name: str, options: CompileOptions, out: Path) -> Engine:
        """Build where the card may be here, else check the graph; the engine then is the graph, not built."""
        if target.how == "kit" or self.missing():
            return self._check(graph, target, encoding_name, options, out)
        file = f"model.{encoding_name}.plan"
        with staged(out) as folder:
            result = build_plan("classic", graph, folder / file, options)
            digest = files_digest([folder / file])
        return Engine(
            path=out / file,
            digest=digest,
            target=target.name,
            backend=self.name,
            encoding=encoding_name,
            graph=graph,
            built=True,
            reproducible=False,
            details={"tensorrt": result.version, **result.details},
        )

    def open(self, engine: Engine, threads: int = 0) -> Runner:
        """Refused: an engine is measured on the device that it was built for."""
        raise CompileError(
            f"an engine for {engine.target} cannot run here",
            where=str(engine.path),
            hint="its graph can: trtcompress validate " + str(engine.graph.path),
        )

    def _check(self, graph: Model, target: Target, encoding_name: str, options: CompileOptions, out: Path) -> Engine:
        checked = check_graph(graph, target, options, out)
        return Engine(
            path=graph.path,
            digest=graph.digest,
            target=target.name,
            backend=self.name,
            encoding=encoding_name,
            graph=graph,
            built=False,
            reproducible=True,
            details={"checked": checked, "how_to_build": how_to_build(graph, target, options)},
        )


def check_graph(graph: Model, target: Target, options: CompileOptions, scratch: Path) -> str:
    """Send the graph through parser and builder of TensorRT for RTX. Returns what was checked, in words.

    The plan is built in the folder `scratch` and thrown away.

    Raises:
        CompileError: they refuse it.
    """
    if lacking := missing_rtx():
        return f"no: {lacking}"
    capability = nearest(target.compute_capabilities[0])
    with staged(scratch) as folder:
        plan = folder / "check.plan"
        result = build_plan("rtx", graph, plan, options, (capability,))
        plan.unlink()
    major, minor = capability
    return f"parsed and built by TensorRT for RTX {result.version} for SM{major}{minor}; " + ", ".join(
        f"in {key[:-6].upper()}: {told}" for key, told in result.details.items() if key in _TOLD
    )


def nearest(capability: tuple[int, int]) -> tuple[int, int]:
    """The greatest checked compute capability up to this one, or the least."""
    return max((known for known in CHECKED if known <= capability), default=CHECKED[0])


def how_to_build(graph: Model, target: Target, options: CompileOptions) -> str:
    """The command that builds the engine on the machine or device that has the card."""
    plan = graph.path.with_suffix(".plan").name
    parts = [f"trtexec --onnx={graph.path.name} --saveEngine={plan}"]
    newest = target.tensorrt[-1][1] if target.tensorrt else "10"
    if int(newest.split(".")[0]) >= 10:
        parts.append("--stronglyTyped")
    else:  # older versions take the types of the graph only where flags allow them
        parts.append("--fp16 --int8" if target.int8 else "--fp16")
    if sparse_weights(graph.path):
        parts.append("--sparsity=enable")
    for flag, at in (("min", 0), ("opt", 1), ("max", 2)):
        shapes = [f"{name}:{'x'.join(map(str, profile[at]))}" for name, profile in options.profiles.items()]
        if shapes:
            parts.append(f"--{flag}Shapes={','.join(shapes)}")
    place = f"on {target.title}" if target.how == "local" else f"on the device ({target.title}, {_release(target)})"
    return f"{place}: {' '.join(parts)}"


def _release(target: Target) -> str:
    return ", ".join(f"{release} with TensorRT {version}" for release, version in target.tensorrt[-1:])
