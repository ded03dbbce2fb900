"""The ways to serve an engine: for each format and backend, what Triton runs and which files it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trtcompress_graph.errors import CompileError, UsageError
from trtcompress_graph.target import Engine

from ..backends.tensorrt import PROFILES
from ..tensorrt_options import BUDGET
from .config import Serving
from .datatypes import ONNXRUNTIME_TYPES, PYTHON_TYPES, TENSORRT_TYPES, Backend
from .options import TritonOptions

RTX_VERSION = "tensorrt_rtx"
"""Key of `Engine.details` under which the `tensorrt_rtx` backend says which release built the plan."""

PLAN_PROFILES = "tensorrt_profiles"
"""Parameter of `config.pbtxt`: how many optimization profiles the plan has, where it has several."""

_ENTRY = ("__init__.py", "model.py", "batching.py", "tensors.py")
_PYTHON = Backend("backend", "python", PYTHON_TYPES)


@dataclass(frozen=True, slots=True)
class Layout:
    """What goes into a model's folder.

    Attributes:
        serving: what `config.pbtxt` says of it.
        code: files of `served/` that lie beside the model, and `streaming.py` of a kit.
    """

    serving: Serving
    code: tuple[str, ...] = ()


def layout(engine: Engine, format: str, options: TritonOptions) -> Layout:
    """How the engine is served in this format.

    Raises:
        UsageError: unknown format.
        CompileError: the engine is not built, or this format cannot serve it.
    """
    formats = sorted({name for name, _ in LAYOUTS})
    if format not in formats:
        raise UsageError(f"unknown format '{format}'", where="package", hint=f"formats: {', '.join(formats)}")
    if not engine.built:
        raise CompileError(
            "the graph was checked but no engine was built, so there is nothing to serve",
            where=f"target '{engine.target}'",
            hint=engine.details.get("how_to_build", "build it on a machine that has the card"),
        )
    make = LAYOUTS.get((format, engine.backend))
    if make is None:
        fitting = sorted(name for name, backend in LAYOUTS if backend == engine.backend)
        raise CompileError(
            f"format '{format}' cannot serve engines of the backend '{engine.backend}'",
            where=f"target '{engine.target}'",
            hint=f"package: [{fitting[0]}], or --format {fitting[0]}"
            if fitting
            else "only built engines of a real backend are served",
        )
    return make(engine, options)


def _onnxruntime(engine: Engine, options: TritonOptions) -> Layout:
    backend = Backend("backend", "onnxruntime", ONNXRUNTIME_TYPES)
    return Layout(Serving(backend, "model.onnx", "model.onnx", "KIND_CPU", _threads(engine, options)))


def _onnxruntime_in_python(engine: Engine, options: TritonOptions) -> Layout:
    parameters = {"runner": "onnxruntime", **_threads(engine, options)}
    return Layout(
        Serving(_PYTHON, "model.py", "model.onnx", "KIND_CPU", parameters), (*_ENTRY, "onnxruntime_runner.py")
    )


def _tensorrt_plan(engine: Engine, options: TritonOptions) -> Layout:
    backend = Backend("platform", "tensorrt_plan", TENSORRT_TYPES)
    several = engine.details.get(PROFILES, "")
    count = int(several) if several.isdecimal() else 1
    parameters = {PLAN_PROFILES: several} if count > 1 else {}
    return Layout(Serving(backend, "model.plan", "model.plan", "KIND_GPU", parameters, count))


def _tensorrt_rtx_in_python(engine: Engine, options: TritonOptions) -> Layout:
    """Triton's `tensorrt_plan` does not load plans of TensorRT for RTX, and only the release that built one does."""
    version = engine.details.get(RTX_VERSION)
    if not version:
        raise CompileError(
            "the engine does not say which release of TensorRT for RTX built it",
            where=str(engine.path),
            hint="compile it again: trtcompress compile",
        )
    parameters = {"runner": "tensorrt_rtx", "tensorrt_rtx_version": version}
    code: tuple[str, ...] = (*_ENTRY, "tensorrt_rtx_runner.py", "cudart.py")
    if BUDGET in engine.details:
        parameters[BUDGET] = engine.details[BUDGET]
        code = (*code, "streaming.py")
    return Layout(Serving(_PYTHON, "model.py", "model.plan", "KIND_GPU", parameters), code)


def _threads(engine: Engine, options: TritonOptions) -> dict[str, str]:
    """The names are those of Triton's onnxruntime backend; 0 leaves the number to ONNX Runtime."""
    measured = engine.details.get("threads", "")
    threads = options.threads if options.threads is not None else int(measured) if measured.isdecimal() else 0
    return {"intra_op_thread_count": str(threads), "inter_op_thread_count": "1"}


LAYOUTS: dict[tuple[str, str], Callable[[Engine, TritonOptions], Layout]] = {
    ("triton", "onnxruntime"): _onnxruntime,
    ("triton", "tensorrt"): _tensorrt_plan,
    ("triton", "tensorrt_rtx"): _tensorrt_rtx_in_python,
    ("triton-python", "onnxruntime"): _onnxruntime_in_python,
    ("triton-python", "tensorrt_rtx"): _tensorrt_rtx_in_python,
}
"""Format and backend of the engine -> its layout."""
