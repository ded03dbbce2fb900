"""Quantized graphs trained as they are: the weights learn under the very encoding that is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.model import Model

from ..config import BuildConfig, RecoverSettings
from ..datasets import open_data
from ..recovery.quantization_aware import train_quantized
from ..recovery.recover import Recovered
from ..recovery.telling import by_lines, work_folder, write_record
from ..stage import DataRef, FunctionRef, MetricRef, Progress, StageSettings, on_this_machine, stage
from .recover import LIBS


class QatSettings(StageSettings):
    """Settings of the qat stage.

    Attributes:
        pruned: the model was cut, so that the full one knows more than the float model that was quantized.
        equalized: scales were moved between layers: inner tensors are no longer those of the full model.
    """

    qat: RecoverSettings
    pruned: bool
    equalized: bool

    @classmethod
    def of(cls, config: BuildConfig) -> Self | None:
        """The section `qat`; without it nothing is trained."""
        if config.qat is None:
            return None
        equalized = config.quantize.equalize != "off"
        return cls(qat=config.qat, pruned=config.prune is not None, equalized=equalized)


@stage(
    output="trained",
    takes="rounded",
    version=1,
    leaves="models/trained/{subject}",
    scope="encoding",
    libs=LIBS,
    device=on_this_machine,
    alone=True,  # it takes all cores
)
def qat(
    simplified: Model,
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
    """Train the Q/DQ graph of an INT8 encoding against the float model; other graphs stay as they are.

    Raises:
        RecoverError: the training diverges, or the user's loop fails.
        OperatorError: an operator that the torch view does not have.
        DataError: samples that do not fit the model, or too few.
    """
    section = settings.qat
    teacher = simplified if settings.pruned else equalized
    data = open_data(training, simplified, samples=section.samples)
    work = work_folder(out, rounded.digest, teacher.digest, training.digest, section)
    made = train_quantized(
        *(rounded, teacher, section, data, out / "model.onnx", work, by_lines(f"qat {encoding.name}", progress)),
        metrics=metrics,
        function=qat_loop,
        outputs_only=settings.pruned and settings.equalized,
    )
    write_record(made, out)
    return made
