"""What a kit is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trtcompress_graph.axes import Axes
from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.errors import UsageError
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges
from trtcompress_graph.target import Engine, Target

from .builder import DEFAULT, BuilderRef
from .config import MeasureSettings
from .stage import DataRef


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


def calibration_cache(implicit: Implicit, target: Target) -> str:
    """Text of calibration.cache for the newest release of the platform that reads one; empty where none does."""
    from trtcompress_calibration.trt_cache import cache_text, version_number
    from trtcompress_engines.tensorrt_release import having

    version = having(target, ["implicit"]).tensorrt[-1][1] if target.tensorrt else ""
    try:
        version_number(version)
    except UsageError:
        return ""
    ranges = replace(implicit.ranges, tensors=dict(sorted(implicit.ranges.tensors.items())))
    return cache_text(implicit.model, ranges, implicit.plan, implicit.encoding, version)
