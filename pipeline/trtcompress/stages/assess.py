"""What the cut cost: the pruned model against the one that the build started from, both in float."""

from __future__ import annotations

from typing import Self

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.model import Model

from ..config import BuildConfig
from ..datasets import open_evaluation
from ..stage import DataRef, MetricRef, Progress, StageSettings, on_this_machine, stage
from ..validation import Emulation


class AssessSettings(StageSettings):
    """Settings of the assess stage."""

    @classmethod
    def of(cls, config: BuildConfig) -> Self | None:
        """Without a section `prune` there is nothing to assess."""
        return None if config.prune is None else cls()


@stage(
    output="assessment",
    version=2,
    leaves="validation/pruned",
    libs=("onnxruntime", "polygraphy", "numpy", "pillow"),
    device=on_this_machine,
)
def assess(
    exported: Model,
    student: Model,
    evaluation: DataRef,
    metrics: tuple[MetricRef, ...],
    axes: dict[str, dict[str, AxisRange]],
    settings: AssessSettings,
    progress: Progress,
) -> Emulation:
    """Compare outputs and metrics, so that the report can tell the cost of the cut from that of quantization.

    Raises:
        DataError: samples that do not fit the model, or no labels where a metric needs them.
    """
    from ..checking import emulate_graph
    from ..profiles import named_axes

    data = open_evaluation(evaluation, exported)
    return emulate_graph(exported, student, "pruned", data, metrics, named_axes(exported, axes), progress)
