"""A recipe as a command of `trtexec`, or of `tensorrt_rtx`, which is the same for RTX cards."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from ..backend import Profile
from .trt_recipe import Recipe

_BY_FLAG: Mapping[str, str] = {
    "FP16": "--fp16",
    "BF16": "--bf16",
    "INT8": "--int8",
    "SPARSE_WEIGHTS": "--sparsity=enable",
    "REFIT": "--refit",
    "STRIP_PLAN": "--stripWeights",
    "WEIGHT_STREAMING": "--allowWeightStreaming",
    "VERSION_COMPATIBLE": "--versionCompatible",
    "GPU_FALLBACK": "--allowGPUFallback",
    "PREFER_PRECISION_CONSTRAINTS": "--precisionConstraints=prefer",
    "STRICT_TYPES": "",  # what --useDLACore does alone
    "REFIT_IDENTICAL": "",  # what --stripWeights does alone
}
_POOLS = (8, 4)
"""Before, the workspace was an option of its own."""
_EARLY_WORKSPACE_MB = 1024
"""Given there where nothing is asked: it meant 16 MiB, for which kernels are left out and some layers have none at all.
The smallest device of those releases, Jetson Nano, has 4 GB; no more is taken than the kernels that are chosen need."""
_PROFILES = (10, 0)
"""Before, it took one."""
_SKIPS_INFERENCE = (8, 6)
"""Before, it was called --buildOnly."""


def trtexec(recipe: Recipe) -> tuple[str, ...]:
    """The command and its arguments; files are named as they lie beside each other."""
    return ("tensorrt_rtx" if recipe.flavour == "rtx" else "trtexec", *_arguments(recipe))


def as_line(command: tuple[str, ...]) -> str:
    """For a shell."""
    return shlex.join(command)


def _arguments(recipe: Recipe) -> Iterator[str]:
    number, classic = recipe.release.number, recipe.flavour == "classic"
    yield f"--onnx={recipe.onnx}"
    yield f"--saveEngine={recipe.plan}"
    if recipe.strongly_typed and recipe.release.typing == "asked":
        yield "--stronglyTyped"
    yield from (_BY_FLAG[flag] for flag in recipe.flags if _BY_FLAG[flag])
    if recipe.capabilities:
        yield f"--computeCapabilities={','.join(name.removeprefix('SM') for name in recipe.capabilities)}"
    if recipe.tf32 is False:
        yield "--noTF32"
    if recipe.calibration_cache:
        yield f"--calib={recipe.calibration_cache}"
    if recipe.dla is not None:
        yield f"--useDLACore={recipe.dla}"
    if classic and number < _POOLS:
        yield f"--workspace={recipe.workspace_mb or _EARLY_WORKSPACE_MB}"
    elif recipe.workspace_mb is not None:
        yield f"--memPoolSize=workspace:{recipe.workspace_mb}"
    if recipe.optimization_level is not None:
        yield f"--builderOptimizationLevel={recipe.optimization_level}"
    if recipe.hardware:
        yield "--hardwareCompatibilityLevel=ampere+"
    if recipe.timing_cache:
        yield f"--timingCacheFile={recipe.timing_cache}"
    several = len(recipe.profiles) > 1
    for index, profile in enumerate(recipe.profiles):
        if several:
            yield f"--profile={index}"
        yield from _shapes(profile)
    yield "--skipInference" if not classic or number >= _SKIPS_INFERENCE else "--buildOnly"


def _shapes(profile: Mapping[str, Profile]) -> Iterator[str]:
    for option, at in (("min", 0), ("opt", 1), ("max", 2)):
        shapes = [f"{name}:{'x'.join(map(str, shapes[at]))}" for name, shapes in profile.items() if shapes[at]]
        if shapes:
            yield f"--{option}Shapes={','.join(shapes)}"


def lacking(recipe: Recipe) -> str:
    """What of the recipe the command cannot do; empty where it does all."""
    if len(recipe.profiles) > 1 and recipe.flavour == "classic" and recipe.release.number < _PROFILES:
        return f"trtexec of TensorRT {recipe.version} builds one profile only, and this engine has several"
    return ""
