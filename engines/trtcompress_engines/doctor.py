"""What can be built on this machine, what is missing, and what to type."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from trtcompress_graph.errors import CompileError, UsageError
from trtcompress_graph.target import How

from .backends import BY_HOW
from .backends.trt_load import gpu_count, missing_classic, missing_rtx
from .backends.trt_process import probe
from .cpu import cpu_features
from .targets import targets
from .tensorrt_release import Flavour
from .triton.installed import WHEEL, find_server

LIBRARIES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "polygraphy", "numpy", "numba")
LEAST_FREE_GB = 5.0

_KINDS: dict[How, str] = {
    "cpu": "engines for this CPU",
    "aot": "engines for RTX cards",
    "local": "engines for data-centre cards",
    "kit": "engines for Jetson",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: the thing.
        ok: whether it is there and works.
        detail: what was seen.
        todo: what to type where it is missing, or nothing.
    """

    what: str
    ok: bool
    detail: str
    todo: str = ""


def diagnose() -> tuple[Finding, ...]:
    """Look at everything. Takes a few seconds: libraries are loaded, in processes of their own."""
    return (
        *_software(),
        _onnxruntime(),
        _tensorrt("rtx", "TensorRT for RTX", missing_rtx()),
        _tensorrt("classic", "TensorRT", missing_classic()),
        *_hardware(),
        *_tools(),
        *_kinds(),
    )


def _software() -> Iterator[Finding]:
    yield Finding("Python", True, platform.python_version())
    for library in LIBRARIES:
        try:
            yield Finding(library, True, version(library))
        except PackageNotFoundError:
            yield Finding(library, False, "not installed", f"pip install {library}")


def _onnxruntime() -> Finding:
    if not find_spec("onnxruntime"):
        return Finding("ONNX Runtime providers", False, "not installed", "pip install onnxruntime")
    import onnxruntime

    return Finding("ONNX Runtime providers", True, ", ".join(onnxruntime.get_available_providers()))


def _tensorrt(flavour: Flavour, title: str, missing: str) -> Finding:
    if missing:
        return Finding(title, False, "not installed", missing.partition(": ")[2])
    try:
        result = probe(flavour)
    except CompileError as error:
        return Finding(title, False, f"does not load: {error.what}", "reinstall it")
    cards = ", ".join(result.compute_capabilities)
    return Finding(title, True, f"{result.version}{f', builds for {cards}' if cards else ''}")


def _hardware() -> Iterator[Finding]:
    cpu = cpu_features()
    yield Finding("CPU", True, f"{cpu.name}, {cpu.cores} cores, {' '.join(cpu.flags) or 'flags unknown'}")
    weights = "8-bit weights" if cpu.vnni else "without VNNI INT8 weights get 7 bits, and INT8 gains less"
    yield Finding("VNNI", cpu.vnni, weights)
    gpus = gpu_count()
    yield Finding("NVIDIA GPU", gpus > 0, f"{gpus} found" if gpus else "none, or no driver")
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    todo = "" if free >= LEAST_FREE_GB else "trtcompress cache gc"
    yield Finding("disk", free >= LEAST_FREE_GB, f"{free:.0f} GB free in {Path.cwd()}", todo)


def _tools() -> Iterator[Finding]:
    found = bool(find_spec("pycuda"))
    yield Finding(
        "pycuda",
        found,
        "installed" if found else "not installed",
        "" if found else "pip install '.[cuda]' (in a checkout)",
    )
    trtexec = shutil.which("trtexec")
    yield Finding("trtexec", trtexec is not None, trtexec or "not on PATH; it comes with TensorRT")
    try:
        yield Finding("tritonserver", True, str(find_server().binary))
    except UsageError:
        yield Finding("tritonserver", False, f"not on PATH; it comes with Triton's container, or: pip install {WHEEL}")


def _kinds() -> Iterable[Finding]:
    """Which kinds of targets can be built here."""
    for how, title in _KINDS.items():
        names = [target.name for target in targets().values() if target.how == how]
        missing = "built on the device, from the graphs of a build" if how == "kit" else BY_HOW[how].missing()
        reason, _, todo = missing.partition(": ")
        count = f"{len(names)} target{'s' if len(names) > 1 else ''}"
        yield Finding(title, not missing, f"{count}: {reason}" if reason else count, todo)
