"""Every engine of a target against the model that the build started from."""

from __future__ import annotations

from typing import Self

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

from ..config import BuildConfig, GateSettings, MeasureSettings
from ..datasets import open_data
from ..stage import DataRef, MetricRef, Progress, StageSettings, on_this_machine, stage
from ..validation import Emulation, Validation


class ValidateSettings(StageSettings):
    """Settings of the validate stage."""

    gates: GateSettings
    measure: MeasureSettings

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the sections `gates` and `measure`."""
        return cls(gates=config.gates, measure=config.measure)


@stage(
    output="validation",
    version=3,
    leaves="validation/{subject}",
    scope="target",
    libs=("onnxruntime", "polygraphy", "numpy", "pillow"),
    device=on_this_machine,
    alone=True,
)
def validate(
    exported: Model,
    engines: tuple[Engine, ...],
    target: Target,
    evaluation: DataRef,
    metrics: tuple[MetricRef, ...],
    axes: dict[str, dict[str, AxisRange]],
    settings: ValidateSettings,
    progress: Progress,
    emulations: tuple[Emulation, ...] = (),
) -> Validation:
    """Compare outputs, metrics and speed, and apply the gates.

    Raises:
        DataError: samples that do not fit the model, or no labels where a metric needs them.
    """
    from ..checking import CheckOptions, check_engines
    from ..profiles import named_axes

    def counted(done: int, total: int | None = None) -> None:
        progress(done, total or evaluation.samples)

    options = CheckOptions(metrics, settings.gates, settings.measure, named_axes(exported, axes))
    data = open_data(evaluation, exported)
    return check_engines(exported, engines, target, data, options, counted, emulations)
