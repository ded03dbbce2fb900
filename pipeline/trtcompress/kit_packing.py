"""A kit for a device, from what a build made: for the package stage and for `trtcompress package --format jetson`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trtcompress_graph.axes import Axes
from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.errors import UsageError
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges
from trtcompress_graph.target import Engine, Target

from .config import MeasureSettings
from .profiles import batch_range, named_axes, profiles
from .stage import DataRef
from .store import store_errors

FORMAT = "jetson"

_ON_DEVICE = ("top1", "top5")
"""Metrics that the kit computes with numpy alone."""


@dataclass(frozen=True, slots=True)
class Implicit:
    """What calibration.cache is made of: the float model that was calibrated, and one INT8 encoding of it."""

    model: Model
    ranges: Ranges
    plan: PrecisionPlan
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class KitSources:
    """What a kit is made of.

    Attributes:
        name: of the build.
        engines: of the target, the preferred one first; for a device they are graphs that were checked.
        gates: names and limits that stand on the shipped engine.
        metrics: names of those that the build measured.
        reference: the model as it came.
        pruned: the float model after a cut; None where nothing was pruned.
        data: of the evaluation.
        axes: ranges of the dynamic axes, as in the config.
    """

    name: str
    target: Target
    engines: tuple[Engine, ...]
    gates: tuple[tuple[str, float], ...]
    metrics: tuple[str, ...]
    reference: Model
    pruned: Model | None
    implicit: Implicit | None
    data: DataRef
    axes: Axes
    measure: MeasureSettings


def implicit_of(
    model: Model, ranges: Ranges, plans: Sequence[PrecisionPlan], encodings: Sequence[Encoding]
) -> Implicit | None:
    """What calibration.cache is made of, of the first INT8 encoding; None where there is none."""
    by_name = {plan.encoding: plan for plan in plans}
    held = (e for e in encodings if e.int8 and e.symmetric and e.name in by_name)
    return next((Implicit(model, ranges, by_name[e.name], e) for e in held), None)


def no_kit_for(target: Target) -> str:
    """Why no kit is made for a target; empty where one is."""
    if target.how == "kit":
        return ""
    return f"{FORMAT}: not packed, a kit is for a device that builds its own engines, such as jetson-agx-orin"


def pack_kit(sources: KitSources, folder: Path) -> None:
    """Write a kit into an empty folder.

    Raises:
        DataError: the samples do not fit the model.
        StoreError: the folder cannot be written.
    """
    from trtcompress_engines.kit.device.kit import IMPLICIT, REFERENCE
    from trtcompress_engines.kit.write import KitContents, write_kit

    from .kit_golden import golden_batches

    axes = named_axes(sources.reference, sources.axes)
    golden = golden_batches(sources.data, sources.reference, sources.pruned, axes)
    models = {REFERENCE: sources.reference} | {engine.encoding: engine.graph for engine in sources.engines}
    cache = calibration_cache(sources.implicit, sources.target) if sources.implicit else ""
    if sources.implicit and cache:
        models[IMPLICIT] = sources.implicit.model
    rng = batch_range(sources.reference.inputs, axes)
    batches = tuple(sorted(set(sources.measure.batches or (rng.min, rng.opt, rng.max)))) if rng else ()
    labelled = all(batch.labels is not None for batch in golden)
    contents = KitContents(
        name=sources.name,
        models=models,
        cache=cache,
        profiles=profiles(sources.reference, sources.axes),
        batches=batches,
        usual_batch=rng.opt if rng else golden[0].filled,
        metrics=tuple(m for m in sources.metrics if m.partition(":")[0] in _ON_DEVICE) if labelled else (),
        gates=sources.gates,
    )
    with store_errors(folder):
        write_kit(contents, sources.target, golden, folder)


def calibration_cache(implicit: Implicit, target: Target) -> str:
    """Text of calibration.cache for the newest release of the target's platform; empty where it reads none."""
    from trtcompress_calibration.trt_cache import cache_text, version_number

    version = target.tensorrt[-1][1] if target.tensorrt else ""
    try:
        version_number(version)
    except UsageError:
        return ""
    ranges = replace(implicit.ranges, tensors=dict(sorted(implicit.ranges.tensors.items())))
    return cache_text(implicit.model, ranges, implicit.plan, implicit.encoding, version)
