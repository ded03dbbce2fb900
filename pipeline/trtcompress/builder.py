"""What a config asks of TensorRT's builder for each target, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from trtcompress_engines.backend import not_here
from trtcompress_engines.encodings import ALIASES, FORMATS
from trtcompress_engines.tensorrt_options import SECTION, TensorRTOptions, pinned, refuse
from trtcompress_engines.tensorrt_release import Feature, Release, installed, release_of
from trtcompress_graph.axes import Axes, AxisRange
from trtcompress_graph.errors import UsageError
from trtcompress_graph.target import Target

from .config import BuildConfig, Loaded, TargetSettings, TensorRTSettings, TimingCacheSettings
from .profile_parts import joined, refuse_gaps

Implicit = Literal["", "ranges", "samples"]


@dataclass(frozen=True, slots=True)
class BuilderRef:
    """What is asked for one target. The timing cache counts with its digest, which stands in the options.

    Attributes:
        implicit: where the scales of INT8 come from, if they do not stand in the graph.
        profiles: ranges of axes that get kernels of their own; what one does not say is as for the whole model.
    """

    options: TensorRTOptions = field(default_factory=TensorRTOptions)
    implicit: Implicit = ""
    profiles: tuple[Axes, ...] = ()

    @property
    def features(self) -> tuple[Feature, ...]:
        """What a release of TensorRT has to have for it."""
        return (*self.options.asked, *(("implicit",) if self.implicit else ()))

    def parts(self, axes: Axes) -> list[Axes]:
        """Ranges of all axes, by profile."""
        return [joined(axes, part) for part in self.profiles] or [axes]


DEFAULT = BuilderRef()

_ALONE = {"name": "alone", "model": "alone.onnx", "data": {"calibration": "none"}}
"""A config for the sake of one section."""


def builder_of(target: Target, settings: TargetSettings, loaded: Loaded) -> BuilderRef:
    """What is asked for a target: its own section `tensorrt`, or that of the build.

    Raises:
        UsageError: options that exclude each other, or that the device or its TensorRT does not have.
        ConfigError: profiles that do not make up the ranges of the axes.
        MissingPathError: there is no such timing cache.
    """
    config = loaded.config
    if target.how == "cpu":
        if settings.tensorrt is not None:
            raise UsageError("a CPU has no TensorRT", where=f"targets: {target.name}: {SECTION}", hint="remove it")
        return DEFAULT
    section = config.tensorrt if settings.tensorrt is None else settings.tensorrt
    if settings.precision not in ("auto", "int8") and section.implicit:
        hint = f"leave tensorrt.implicit out, or build {target.name}:int8"
        raise UsageError(f"'{settings.precision}' has no scales of INT8", where=f"{SECTION}.implicit", hint=hint)
    made = asked_of(section, target, loaded.base)
    _refuse_types(made, target, settings.precision)
    _refuse_pipeline(made, target, config)
    refuse_gaps(made.profiles, config.model.axes)
    return made


def builder_from(overrides: Sequence[str], target: Target, axes: Axes) -> BuilderRef:
    """What `--set tensorrt.KEY=VALUE` asks for one graph.

    Raises:
        UsageError: another key, or what the device or its TensorRT does not have.
        ConfigError: a value that a config could not hold either, or profiles with gaps.
        MissingPathError: there is no such timing cache.
    """
    from .config_file import check_config

    if not overrides:
        return DEFAULT
    for override in overrides:
        if not override.startswith(f"{SECTION}."):
            hint = f"--set {SECTION}.workspace_mb=512; the rest of a config is for trtcompress build"
            raise UsageError(f"'{override}' is nothing that one engine is built by", where="--set", hint=hint)
    if target.how == "cpu":
        raise UsageError("a CPU has no TensorRT", where="--set", hint="leave it out")
    section = check_config(_ALONE, overrides, file="--set", lines={}).tensorrt
    if section.by_cache and target.int8:
        raise UsageError(
            "a graph alone has no ranges, of which the scales for a DLA and implicit INT8 are made",
            where=f"--set {SECTION}.{'implicit' if section.implicit else 'dla'}",
            hint="trtcompress build has them; trtcompress quantize --cache writes them",
        )
    made = asked_of(section, target, Path())
    refuse_gaps(made.profiles, axes)
    return made


def recorded(target: Target, settings: TargetSettings, config: BuildConfig, timing_cache: Path) -> BuilderRef:
    """What a finished build asked for a target.

    Args:
        target: the device.
        settings: of the target in the config.
        config: of the build.
        timing_cache: where the build left it.

    Raises:
        MissingPathError: the timing cache is gone.
    """
    section = config.tensorrt if settings.tensorrt is None else settings.tensorrt
    if target.how == "cpu":
        return DEFAULT
    if section.timing_cache is not None:
        section = section.model_copy(update={"timing_cache": TimingCacheSettings(source=str(timing_cache.resolve()))})
    return asked_of(section, target, Path())


def asked_of(section: TensorRTSettings, target: Target, base: Path) -> BuilderRef:
    """A section `tensorrt` for a target.

    Raises:
        UsageError: options that exclude each other, or that the device or its TensorRT does not have.
        MissingPathError: there is no such timing cache.
    """
    from trtcompress_engines.backends.trt_load import gpu_count

    options = _options(section, base)
    implicit: Implicit = section.implicit or ("ranges" if section.dla is not None and target.int8 else "")
    release = _release(target, BuilderRef(options, implicit))
    refuse(options, target, release, gpu=gpu_count() > 0)
    if options.weight_streaming and (implicit or options.dla is not None):
        raise UsageError(
            f"weight_streaming cannot be had for '{target.name}': it needs a graph with types, which implicit INT8 and "
            "engines for a DLA are not built of",
            where=f"{SECTION}.weight_streaming",
            hint="leave it out, or tensorrt.implicit and tensorrt.dla",
        )
    digest = pinned(options)
    if implicit and (lacking := release.lacks("implicit")):
        hint = "leave it out: INT8 then stands in the graph"
        raise UsageError(
            f"implicit INT8 cannot be had for '{target.name}': {lacking}", where=f"{SECTION}.implicit", hint=hint
        )
    profiles = tuple(
        {name: {axis: AxisRange(*lengths) for axis, lengths in axes.items()} for name, axes in part.items()}
        for part in section.profiles
    )
    return BuilderRef(replace(options, timing_cache_sha256=digest), implicit, profiles)


def _options(section: TensorRTSettings, base: Path) -> TensorRTOptions:
    cache = section.timing_cache
    return TensorRTOptions(
        workspace_mb=section.workspace_mb,
        optimization_level=section.optimization_level,
        timing_cache=base / cache.source if cache else None,
        timing_cache_sha256=(cache.sha256 or "") if cache else "",
        hardware_compatible=section.hardware_compatible,
        version_compatible=section.version_compatible,
        refit=section.refit,
        strip=section.strip,
        weight_streaming=section.weight_streaming,
        weight_streaming_budget="" if section.weight_streaming_budget is None else str(section.weight_streaming_budget),
        sparse=section.sparse,
        dla=section.dla,
        version=section.version or "",
    )


def _release(target: Target, builder: BuilderRef) -> Release:
    """Of the TensorRT that builds."""
    from trtcompress_engines.backends.tensorrt_rtx import refuse_cards

    options = builder.options
    if target.how != "aot":
        return release_of(target, options.version, builder.features)
    here = installed("rtx") or Release("rtx", options.version or "1.0")
    if options.version and not here.same_as(options.version):
        raise UsageError(
            f"'{target.name}' is built by {here.title}, which is installed here",
            where=f"{SECTION}.version",
            hint="leave it out",
        )
    refuse_cards(target)
    return here


def _refuse_types(made: BuilderRef, target: Target, precision: str) -> None:
    """Types that no flag of a builder allows, where flags choose the types."""
    if ALIASES.get(precision, precision) not in FORMATS:
        return
    release = _release(target, made)
    if release.typing == "flags" or made.options.dla is not None:
        by = "an engine for a DLA" if release.typing != "flags" else release.title
        what = f"{by} does not take the types of such a graph: it knows FP16 and INT8"
        hint = f"build {target.name}:int8 or {target.name}:float, or by TensorRT 10 without a DLA"
        raise UsageError(what, where=f"target '{target.name}:{precision}'", hint=hint)


def _refuse_pipeline(made: BuilderRef, target: Target, config: BuildConfig) -> None:
    """What the rest of the build cannot do with such an engine."""
    if made.options.strip and config.package:
        raise UsageError(
            "a plan without weights cannot be served by Triton, nor measured by a kit",
            where=f"{SECTION}.strip",
            hint="set package: [], and put the weights in where it is loaded (refit.py lies beside the plan)",
        )
    if made.implicit and config.qat is not None:
        raise UsageError(
            "what quantization-aware training learns stands in Q/DQ pairs, which implicit INT8 has not",
            where="qat",
            hint="remove it, or tensorrt.implicit and tensorrt.dla",
        )
    if made.implicit == "samples" and (lacking := not_here(target)):
        raise UsageError(
            f"TensorRT calibrates '{target.name}' on the machine that builds its engine: {lacking}",
            where=f"{SECTION}.implicit",
            hint="tensorrt.implicit=ranges takes our ranges, and builds there too",
        )
