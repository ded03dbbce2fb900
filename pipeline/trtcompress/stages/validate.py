"""Every engine of a target against the model that the build started from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.callables import is_callable_name
from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges
from trtcompress_graph.target import Engine, Target

from ..config import BuildConfig, GateSettings, MeasureSettings
from ..datasets import open_evaluation
from ..stage import DataRef, MetricRef, Progress, StageSettings, on_this_machine, stage
from ..validation import Emulation, Validation


class ValidateSettings(StageSettings):
    """Settings of the validate stage."""

    gates: GateSettings
    measure: MeasureSettings
    pruned: bool
    trained: bool

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the sections `gates` and `measure`, and whether there are sections that cut or train."""
        trained = config.recover is not None or config.qat is not None
        return cls(gates=config.gates, measure=config.measure, pruned=config.prune is not None, trained=trained)

    def unread(self) -> frozenset[str]:
        """Samples of a training count only where there was one."""
        return frozenset() if self.trained else frozenset({"training"})


@stage(
    output="validation",
    version=12,
    leaves="validation/{subject}",
    scope="target",
    libs=("onnxruntime", "polygraphy", "numpy", "pillow", "tensorrt", "pycuda"),
    device=on_this_machine,
    alone=True,
)
def validate(
    exported: Model,
    student: Model,
    engines: tuple[Engine, ...],
    target: Target,
    evaluation: DataRef,
    calibration: DataRef,
    ranges: Ranges,
    plans: tuple[PrecisionPlan, ...],
    encodings: tuple[Encoding, ...],
    metrics: tuple[MetricRef, ...],
    axes: dict[str, dict[str, AxisRange]],
    settings: ValidateSettings,
    progress: Progress,
    emulations: tuple[Emulation, ...] = (),
    training: DataRef | None = None,
) -> Validation:
    """Compare outputs, metrics and speed, and apply the gates.

    Raises:
        DataError: samples that do not fit the model, or no labels where a metric needs them.
    """
    from ..checking import CheckOptions, check_engines
    from ..profiles import named_axes

    pruned = student if settings.pruned else None
    options = CheckOptions(metrics, settings.gates, settings.measure, named_axes(exported, axes), pruned)
    data = open_evaluation(evaluation, exported)
    idle = {e.name for plan, e in zip(plans, encodings, strict=True) if e.int8 and not plan.quantized}
    found = check_engines(exported, engines, target, data, options, progress, emulations, idle)
    doubts = [*_doubts(exported, ranges, list(zip(plans, encodings, strict=True)))]
    if training is not None and _same(evaluation, training):
        doubts.append(
            "evaluated on the data of the training, so that it looks better than on samples that it has not seen: name "
            "other samples as data.evaluation"
        )
    if _same(evaluation, calibration):
        cut = ", which the cut was solved from, so that it looks better than it is" if settings.pruned else ""
        doubts.append(f"evaluated on the data of the calibration{cut}: name other samples as data.evaluation")
    return replace(found, notes=(*doubts, *found.notes))


def _same(one: DataRef, other: DataRef) -> bool:
    """Whether two names stand for the same samples; of functions in one module the digest is the same."""
    return one.digest == other.digest and (one.source == other.source or not is_callable_name(one.source))


def _doubts(model: Model, ranges: Ranges, plans: Sequence[tuple[PrecisionPlan, Encoding]]) -> Iterator[str]:
    """What makes the numbers of a build doubtful, one sentence each."""
    from trtcompress_calibration.doubts import doubts, nothing_quantized

    if any(encoding.activation for _, encoding in plans):
        yield from doubts(ranges, model.inputs)
    for plan, encoding in plans:
        yield from filter(None, (plan.note or nothing_quantized(plan, encoding),))
