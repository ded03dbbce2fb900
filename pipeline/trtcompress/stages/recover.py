"""The student trained to answer as the model that it was cut from."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from trtcompress_graph.model import Model

from ..config import BuildConfig, RecoverSettings
from ..datasets import open_data
from ..recovery.own_options import refuse_ignored
from ..recovery.recover import Recovered, Request
from ..recovery.recover import recover as recover_student
from ..recovery.telling import by_lines, work_folder, write_record
from ..stage import DataRef, FunctionRef, MetricRef, Progress, StageSettings, on_this_machine, stage

LIBS = ("onnx", "onnx-ir", "numpy", "pillow", "torch", "lightning-fabric")


class RecoverStageSettings(StageSettings):
    """Settings of the recover stage."""

    recover: RecoverSettings

    @classmethod
    def of(cls, config: BuildConfig) -> Self | None:
        """The section `recover`; without it nothing is trained.

        Raises:
            UsageError: settings that do nothing beside a loop of the user's own.
        """
        return None if config.recover is None else cls(recover=refuse_ignored(config.recover, "recover"))


@stage(
    output="student",
    takes="pruned",
    version=12,
    leaves="models/recovered",
    libs=LIBS,
    device=on_this_machine,
    alone=True,  # it takes all cores
)
def recover(
    simplified: Model,
    pruned: Model,
    training: DataRef,
    metrics: tuple[MetricRef, ...],
    recover_loop: FunctionRef | None,
    settings: RecoverStageSettings,
    out: Path,
    progress: Progress,
) -> Recovered:
    """Train the pruned model against the full one; what came of it lies beside the graph.

    Raises:
        RecoverError: the training diverges, or the user's loop fails.
        OperatorError: an operator that the torch view does not have.
        DataError: samples that do not fit the model, or too few.
        UsageError: a loss that does not fit the models.
    """
    section = settings.recover
    data = open_data(training, simplified, samples=section.samples)
    work = work_folder(out, pruned, simplified, training, metrics, recover_loop, settings)
    request = Request(pruned, simplified, section, out / "model.onnx", work, metrics, recover_loop, replaces=True)
    made = recover_student(request, data, by_lines("recover", progress))
    write_record(made, out)
    return made
