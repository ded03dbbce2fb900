"""Quantized graphs trained as they are: the weights learn under the very encoding that is shipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.model import Model

from ..config import BuildConfig, RecoverSettings
from ..datasets import open_data
from ..recovery.own_options import refuse_ignored
from ..recovery.quantization_aware import train_quantized
from ..recovery.recover import Recovered
from ..recovery.telling import by_lines, work_folder, write_record
from ..stage import DataRef, FunctionRef, MetricRef, Progress, StageSettings, on_this_machine, stage
from .recover import LIBS


class QatSettings(StageSettings):
    """Settings of the qat stage."""

    qat: RecoverSettings

    @classmethod
    def of(cls, config: BuildConfig) -> Self | None:
        """The section `qat`; without it nothing is trained.

        Raises:
            UsageError: settings that do nothing beside a loop of the user's own.
        """
        return None if config.qat is None else cls(qat=refuse_ignored(config.qat, "qat"))


@stage(
    output="trained",
    takes="rounded",
    version=15,
    leaves="models/trained/{subject}",
    scope="encoding",
    libs=LIBS,
    device=on_this_machine,
    alone=True,  # it takes all cores
)
def qat(
    equalized: Model,
    rounded: Model,
    encoding: Encoding,
    training: DataRef,
    metrics: tuple[MetricRef, ...],
    qat_loop: FunctionRef | None,
    settings: QatSettings,
    out: Path,
    progress: Progress,
) -> Recovered:
    """Train the Q/DQ graph of an INT8 encoding against the float model that was quantized; others stay as they are.

    What a cut lost is for `recover` to bring back: the gates hold this graph to that float model.

    Raises:
        RecoverError: the training diverges, or the user's loop fails.
        OperatorError: an operator that the torch view does not have.
        DataError: samples that do not fit the model, or too few.
    """
    section = settings.qat
    data = open_data(training, equalized, samples=section.samples)
    work = work_folder(out, rounded, equalized, training, metrics, qat_loop, settings)
    made = train_quantized(
        *(rounded, equalized, section, data, out / "model.onnx", work, by_lines(f"qat {encoding.name}", progress)),
        metrics=metrics,
        function=qat_loop,
    )
    if encoding.activation is None:  # of floats, of which nobody expects it
        made = replace(made, notes=())
    write_record(made, out)
    return made
