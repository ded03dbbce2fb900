"""The first samples of each source, held against the exported model: before hours of work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from trtcompress_graph.errors import DataError
from trtcompress_graph.model import Model

from ..comparing import refuse_unlabelled, refuse_unread
from ..config import BuildConfig, RecoverSettings
from ..datasets import open_data, open_evaluation
from ..recovery.loss_names import LABELLED
from ..stage import DataRef, Marker, MetricRef, StageSettings, stage


@dataclass(frozen=True)
class Fitting(Marker):
    """The first sample of each source fits the model, and has a label where one is needed."""


class SamplesSettings(StageSettings):
    """What the samples have to have."""

    trains: bool
    labels: bool

    @classmethod
    def of(cls, config: BuildConfig) -> Self | None:
        """Only before long work: without cuts and trainings the samples are read in the first minutes anyway."""
        trainings = [section for section in (config.recover, config.qat) if section is not None]
        if not trainings and config.prune is None:
            return None
        return cls(trains=bool(trainings), labels=any(_needs_labels(section) for section in trainings))


def _needs_labels(section: RecoverSettings) -> bool:
    return section.labels or any(loss.partition("=")[0] in LABELLED for loss in section.loss)


@stage(output="fitting", version=2, leaves="models/fitting", libs=("numpy", "pillow"))
def samples(
    exported: Model,
    calibration: DataRef,
    evaluation: DataRef,
    training: DataRef,
    metrics: tuple[MetricRef, ...],
    settings: SamplesSettings,
) -> Fitting:
    """Open each source, which reads one sample; the others may still be found not to fit by the stage that reads them.

    Raises:
        DataError: a sample does not fit the model, or lacks a label that a metric or the training needs.
        UsageError: a metric reads an output that the model does not have.
    """
    refuse_unread(metrics, exported)
    first = open_data(calibration, exported)
    judged = first if evaluation == calibration and not evaluation.state else open_evaluation(evaluation, exported)
    refuse_unlabelled(metrics, judged)
    learned = first if training == calibration or not settings.trains else open_data(training, exported)
    if settings.labels and not learned.labelled:
        raise DataError(
            "the training is to learn from labels too, and its data has none",
            where=learned.source,
            hint="add an array `labels` to the training data, or leave `labels: true` out: the teacher's answers do",
        )
    return Fitting()
