"""A kit for a device, from what a build made: for the package stage and for `trtcompress package --format jetson`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from trtcompress_graph.axes import Axes
from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.errors import UsageError
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges
from trtcompress_graph.target import Engine, Target

from .builder import DEFAULT, BuilderRef
from .config import MeasureSettings
from .kit_opsets import with_older
from .profiles import batch_range, named_axes, profiles
from .stage import DataRef
from .store import store_errors

if TYPE_CHECKING:
    from trtcompress_engines.kit.write import KitModel

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
        builder: what is asked of TensorRT's builder.
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
    builder: BuilderRef = DEFAULT


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
        UsageError: a plan without weights is asked, which the kit could not measure.
        ModelError: no TensorRT of the device parses the model, nor can it be brought down; the operator is named.
        DataError: the samples do not fit the model.
        StoreError: the folder cannot be written.
    """
    from trtcompress_engines.kit.write import KitContents, write_kit

    from .kit_golden import golden_batches

    options = sources.builder.options
    if options.strip:
        hint = "leave tensorrt.strip out for this device"
        raise UsageError("a plan without weights cannot be measured by a kit", where="tensorrt.strip", hint=hint)
    target = for_version(sources.target, options.version)
    axes = named_axes(sources.reference, sources.axes)
    golden = golden_batches(sources.data, sources.reference, sources.pruned, axes)
    cache = calibration_cache(sources.implicit, target) if sources.implicit else ""
    implicit = sources.implicit.model if sources.implicit and cache else None
    timing = options.timing_cache.read_bytes() if options.timing_cache else b""
    rng = batch_range(sources.reference.inputs, axes)
    batches = tuple(sorted(set(sources.measure.batches or (rng.min, rng.opt, rng.max)))) if rng else ()
    labelled = all(batch.labels is not None for batch in golden)
    with TemporaryDirectory(prefix="trtcompress-") as aside:
        models, notes = with_older(_models(sources, bool(cache)), target, implicit, Path(aside))
        contents = KitContents(
            name=sources.name,
            models=models,
            cache=cache,
            timing=timing,
            profiles=_profiles(sources),
            batches=batches,
            usual_batch=rng.opt if rng else golden[0].filled,
            metrics=tuple(m for m in sources.metrics if m.partition(":")[0] in _ON_DEVICE) if labelled else (),
            gates=sources.gates,
            notes=tuple(notes),
        )
        with store_errors(folder):
            write_kit(contents, target, golden, folder)


def for_version(target: Target, version: str) -> Target:
    """The device with the platform releases that carry that TensorRT alone; with all where none is named."""
    from trtcompress_engines.tensorrt_release import Release

    if not version:
        return target
    asked = Release("classic", version)
    return replace(target, tensorrt=tuple(held for held in target.tensorrt if asked.same_as(held[1])))


def _models(sources: KitSources, cached: bool) -> dict[str, KitModel]:
    """What the device builds: the model as it came, the engines of the build, and INT8 by the cache."""
    from trtcompress_engines.kit.device.kit import IMPLICIT, REFERENCE
    from trtcompress_engines.kit.write import KitModel

    asked = _asked(sources.builder)
    limits = {key: value for key, value in asked.items() if key in ("workspace_mb", "optimization_level")}
    models = {REFERENCE: KitModel(sources.reference, sources.reference.digest, builder=limits)}
    dla, sparse = sources.builder.options.dla, sources.builder.options.sparse
    implicit = sources.implicit if cached else None
    for engine in sources.engines:
        by_cache = implicit is not None and sources.builder.implicit and engine.encoding == implicit.encoding.name
        graph = implicit.model if implicit and by_cache else engine.graph
        models[engine.encoding] = KitModel(
            graph, engine.graph.digest, bool(by_cache), _flags(graph, bool(by_cache), sparse), asked, dla
        )
    if implicit:
        flags = _flags(implicit.model, True, sparse)
        models[IMPLICIT] = KitModel(implicit.model, implicit.model.digest, True, flags, asked)
    return models


def _asked(builder: BuilderRef) -> dict[str, Any]:
    """What is asked beyond flags of types, sparsity and a DLA; float32 is not multiplied as TF32, as elsewhere."""
    options = builder.options
    found: dict[str, Any] = {
        "workspace_mb": options.workspace_mb,
        "optimization_level": options.optimization_level,
        "version_compatible": options.version_compatible or None,
        "refit": options.refit or None,
        "weight_streaming": options.weight_streaming or None,
    }
    return {"tf32": False, **{key: value for key, value in found.items() if value is not None}}


def _flags(graph: Model, by_cache: bool, sparse: bool | None) -> tuple[str, ...]:
    """Flags of the graph's types, and of sparse weights: as asked, else where they are."""
    from trtcompress_engines.kit.flags import builder_flags

    found = {"FP16", "INT8"} if by_cache else set(builder_flags(graph))
    if by_cache and sparse is None and "SPARSE_WEIGHTS" in builder_flags(graph):
        found.add("SPARSE_WEIGHTS")
    if sparse is not None:
        found = found - {"SPARSE_WEIGHTS"} | ({"SPARSE_WEIGHTS"} if sparse else set())
    return tuple(sorted(found))


def _profiles(sources: KitSources) -> list[Any]:
    """Shapes of the whole, then of each part that gets kernels of its own; empty where no axis is dynamic."""
    parts = [sources.axes, *(sources.builder.parts(sources.axes) if sources.builder.profiles else ())]
    found = [profiles(sources.reference, part) for part in parts]
    return found if found[0] else []


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
