"""A recipe as Polygraphy's builder configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .trt_recipe import Recipe

_BY_FLAG: Mapping[str, str] = MappingProxyType(
    {
        "FP16": "fp16",
        "INT8": "int8",
        "SPARSE_WEIGHTS": "sparse_weights",
        "REFIT": "refittable",
        "STRIP_PLAN": "strip_plan",
        "WEIGHT_STREAMING": "weight_streaming",
        "VERSION_COMPATIBLE": "version_compatible",
        "GPU_FALLBACK": "allow_gpu_fallback",
    }
)
"""Polygraphy's arguments for flags; what is not here `finish_config` sets."""


def create_config(trt: Any, recipe: Recipe, folder: Path, calibrator: Any = None) -> Any:
    """Polygraphy's loader of a configuration, with all that it reaches.

    Args:
        trt: the loaded TensorRT.
        recipe: what to build.
        folder: of the caches that it names.
        calibrator: of the implicit path, or None.
    """
    from polygraphy.backend.trt import CreateConfig

    given: dict[str, Any] = {_BY_FLAG[flag]: True for flag in recipe.flags if flag in _BY_FLAG}
    given["profiles"] = [_profile(shapes) for shapes in recipe.profiles] or None
    if recipe.workspace_mb is not None:
        given["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: recipe.workspace_mb << 20}
    if recipe.optimization_level is not None:
        given["builder_optimization_level"] = recipe.optimization_level
    if recipe.hardware:
        given["hardware_compatibility_level"] = getattr(trt.HardwareCompatibilityLevel, recipe.hardware)
    if recipe.timing_cache and (folder / recipe.timing_cache).exists():
        given["load_timing_cache"] = str(folder / recipe.timing_cache)
    if recipe.flavour == "rtx":
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        numbers = [(int(name[2:-1]), int(name[-1])) for name in recipe.capabilities]
        return CreateConfigRTX(compute_capabilities=numbers, **given)
    return CreateConfig(use_dla=recipe.dla is not None, tf32=recipe.tf32, calibrator=calibrator, **given)


def finish_config(trt: Any, recipe: Recipe, folder: Path, config: Any) -> None:
    """Set what Polygraphy has no argument for: other flags, and which DLA core.

    Raises:
        PolygraphyException: the timing cache is of another release or GPU, of which Polygraphy is silent.
    """
    from polygraphy.exception import PolygraphyException

    for flag in recipe.flags:
        if flag not in _BY_FLAG:
            config.set_flag(getattr(trt.BuilderFlag, flag))
    if recipe.dla is not None:
        config.DLA_core = recipe.dla
    given = folder / recipe.timing_cache
    if recipe.timing_cache and given.exists():
        held = config.create_timing_cache(given.read_bytes())
        if not config.set_timing_cache(held, False):
            raise PolygraphyException("the timing cache is of another release of TensorRT or another GPU")


def _profile(shapes: Mapping[str, Any]) -> Any:
    from polygraphy.backend.trt import Profile

    profile = Profile()
    for name, (least, usual, greatest) in shapes.items():
        profile.add(name, least, usual, greatest)
    return profile
