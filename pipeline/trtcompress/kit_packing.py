"""A kit for a device, from what a build made: for the package stage and for `trtcompress package --format jetson`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trtcompress_graph.errors import UsageError
from trtcompress_graph.target import Target

from .builder import BuilderRef
from .digests import file_digest
from .kit_models import kit_models
from .kit_opsets import with_older
from .kit_sources import Implicit, KitSources, calibration_cache, implicit_of
from .profiles import batch_range, named_axes, profiles
from .store import store_errors

__all__ = ["FORMAT", "Implicit", "KitSources", "calibration_cache", "implicit_of", "no_kit_for", "pack_kit"]

FORMAT = "jetson"

_ON_DEVICE = ("top1", "top5")
"""Metrics that the kit computes with numpy alone."""


def no_kit_for(target: Target) -> str:
    """Why no kit is made for a target; empty where one is."""
    if target.how == "kit":
        return ""
    return f"{FORMAT}: not packed, a kit is for a device that builds its own engines, such as jetson-agx-orin"


def pack_kit(sources: KitSources, folder: Path) -> str:
    """Write a kit into an empty folder.

    Returns:
        Its digest: SHA-256 of its SHA256SUMS.

    Raises:
        UsageError: a plan without weights is asked, which the kit could not measure.
        ModelError: no TensorRT of the device parses the model, nor can it be brought down; the operator is named.
        DataError: the samples do not fit the model.
        StoreError: the folder cannot be written.
    """
    from trtcompress_engines.kit.device.kit import SUMS
    from trtcompress_engines.kit.device.streaming import AUTOMATIC
    from trtcompress_engines.kit.write import KitContents, write_kit

    from .kit_golden import golden_batches

    options = sources.builder.options
    if options.strip:
        hint = "leave tensorrt.strip out for this device"
        raise UsageError("a plan without weights cannot be measured by a kit", where="tensorrt.strip", hint=hint)
    target = for_builder(sources.target, sources.builder)
    axes = named_axes(sources.reference, sources.axes)
    golden = golden_batches(sources.data, sources.reference, sources.pruned, axes)
    cache = calibration_cache(sources.implicit, target) if sources.implicit else ""
    implicit = sources.implicit.model if sources.implicit and cache else None
    timing = options.timing_cache.read_bytes() if options.timing_cache else b""
    rng = batch_range(sources.reference.inputs, axes)
    batches = tuple(sorted(set(sources.measure.batches or (rng.min, rng.opt, rng.max)))) if rng else ()
    labelled = all(batch.has_numbers for batch in golden)
    there = tuple(m for m in sources.metrics if m.partition(":")[0] in _ON_DEVICE) if labelled else ()
    with TemporaryDirectory(prefix="trtcompress-") as aside:
        models, notes = with_older(kit_models(sources, bool(cache)), target, implicit, Path(aside))
        contents = KitContents(
            name=sources.name,
            models=models,
            cache=cache,
            timing=timing,
            profiles=_profiles(sources),
            batches=batches,
            usual_batch=rng.opt if rng else golden[0].filled,
            metrics=there,
            gates=sources.gates,
            scored_later=tuple(metric for metric in sources.metrics if metric not in there),
            notes=tuple(notes),
            budget=options.weight_streaming_budget or AUTOMATIC,
            asked=options.version or "",
        )
        with store_errors(folder):
            write_kit(contents, target, golden, folder)
            return file_digest(folder / SUMS)


def for_builder(target: Target, builder: BuilderRef) -> Target:
    """The device with the platform releases that have the TensorRT which is named alone.

    Where none is named, with those that have a DLA or calibration caches, if they are asked: without them there is no
    engine. Other options that a release lacks are left out on the device.
    """
    from trtcompress_engines.tensorrt_release import Release, having

    version = builder.options.version
    target = replace(target, tensorrt=(*target.tensorrt, *target.installable), installable=())
    if not version:
        return having(target, [feature for feature in builder.features if feature in ("dla", "implicit")])
    asked = Release("classic", version)
    return replace(target, tensorrt=tuple(held for held in target.tensorrt if asked.same_as(held[1])))


def _profiles(sources: KitSources) -> list[Any]:
    """Shapes of the whole, then of each part that gets kernels of its own; empty where no axis is dynamic."""
    parts = [sources.axes, *(sources.builder.parts(sources.axes) if sources.builder.profiles else ())]
    found = [profiles(sources.reference, part) for part in parts]
    return found if found[0] else []
