"""Finding TensorRT for RTX and classic TensorRT, and loading one of them into a process."""

from __future__ import annotations

import ctypes
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trtcompress_graph.target import Target

from ..gpu.present import gpu_capabilities, gpu_names, has_less_memory, is_of_model
from ..tensorrt_release import BINDINGS, Flavour

LIBRARIES = ("libcudart.so*", "libtensorrt_rtx.so*", "libtensorrt_onnxparser_rtx.so*")
"""In the order in which they need one another."""


def missing_rtx() -> str:
    """Empty where TensorRT for RTX is installed, else what is missing and what to type. Loads nothing."""
    lacks = [] if _bindings() else ["its Python bindings"]
    if not find_spec("tensorrt_rtx_libs") and not all(_libraries()):
        lacks.append("its libraries")
    if not lacks:
        return ""
    return f"TensorRT for RTX is not installed ({' and '.join(lacks)} missing): pip install '.[rtx]' (in a checkout)"


def missing_classic() -> str:
    """Empty where classic TensorRT is installed, else what to type. Loads nothing."""
    return "" if find_spec("tensorrt") else "TensorRT is not installed: pip install '.[tensorrt]' (in a checkout)"


def load(flavour: Flavour) -> Any:
    """Load TensorRT into this process, in the way that Polygraphy will find it.

    Polygraphy binds to one flavour when it is imported, so a process loads one flavour and never the other.
    """
    if flavour == "classic":
        return import_module("tensorrt")
    import polygraphy.config

    polygraphy.config.USE_TENSORRT_RTX = True
    if not find_spec("tensorrt_rtx_libs"):
        for library in _libraries():
            if library is not None:
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    module = import_module(_bindings())
    sys.modules["tensorrt_rtx"] = module
    return module


def gpu_count() -> int:
    """NVIDIA GPUs that the driver shows to this process; 0 where there is no driver."""
    return len(gpu_names())


def unfit_card(target: Target) -> str:
    """Empty where the first GPU of this machine can build for a target, else what it is; needs a GPU."""
    if why := other_card(target):
        return why
    title = next(iter(gpu_names()), "")
    if not has_less_memory(title, target):
        return ""
    return f"the GPU here is {title}, and '{target.name}' has {target.memory_gb:g} GB: build on a machine that has it"


def other_card(target: Target) -> str:
    """Empty where the first GPU of this machine runs plans of a target, else what it is; needs a GPU."""
    capabilities = gpu_capabilities()
    if not capabilities or not target.compute_capabilities or capabilities[0] in target.compute_capabilities:
        return ""
    here, there = (f"SM{major}{minor}" for major, minor in (capabilities[0], target.compute_capabilities[0]))
    return f"the GPU here is {gpu_names()[0]} ({here}), and '{target.name}' is {there}: build on a machine that has it"


def stand_in(target: Target) -> str:
    """Empty where the first GPU of this machine is of the target's model, or no GPU is told of; else what it is."""
    title = next(iter(gpu_names()), "")
    if not title or is_of_model(title, target):
        return ""
    return f"{title}, not {target.title}: kernels and times are that card's"


def _bindings() -> str:
    return next((name for name in BINDINGS["rtx"] if find_spec(name)), "")


def _libraries() -> list[Path | None]:
    """The libraries inside ONNX Runtime's plug-in for TensorRT for RTX; None for each that is not there."""
    spec = find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return [next(iter(sorted(folder.glob(pattern))), None) if folder else None for pattern in LIBRARIES]
