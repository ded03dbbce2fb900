"""The accuracy of a graph for a device that is not here: the graph as it is written, under ONNX Runtime."""

from __future__ import annotations

from typing import Self

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.model import Model
from trtcompress_graph.target import Target

from ..config import BuildConfig
from ..datasets import open_evaluation
from ..stage import DataRef, MetricRef, Progress, StageSettings, on_this_machine, stage
from ..validation import Emulation


class EmulateSettings(StageSettings):
    """Settings of the emulate stage."""

    pruned: bool

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """Whether there is a section `prune`."""
        return cls(pruned=config.prune is not None)


def _elsewhere(target: Target) -> bool:
    return target.how != "cpu"


@stage(
    output="emulation",
    version=4,
    leaves="validation/{subject}",
    scope="encoding",
    libs=("onnxruntime", "polygraphy", "numpy", "pillow"),
    device=on_this_machine,
    applies=_elsewhere,
)
def emulate(
    exported: Model,
    student: Model,
    trained: Model,
    encoding: Encoding,
    evaluation: DataRef,
    metrics: tuple[MetricRef, ...],
    axes: dict[str, dict[str, AxisRange]],
    settings: EmulateSettings,
    progress: Progress,
) -> Emulation:
    """Compare outputs and metrics with the model that the build started from; once for all targets that share it.

    Raises:
        DataError: samples that do not fit the model, or no labels where a metric needs them.
    """
    from ..checking import emulate_graph
    from ..profiles import named_axes

    data = open_evaluation(evaluation, exported)
    return emulate_graph(
        *(exported, trained, encoding.name, data, metrics, named_axes(exported, axes), progress),
        pruned=student if settings.pruned else None,
    )
