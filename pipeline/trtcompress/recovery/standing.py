"""How well a student does on the samples that are held out, before any loop trains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from .augment import Changes
from .feed import Feed, input_kinds
from .job import Job, Subjects, batches_of, graduates
from .judge import held_out_loss
from .learner import Learner, judging, make_terms, start_terms, teacher_view, tensors_of
from .loss_names import LOGITS
from .measured import Measured
from .taps import tapped


@dataclass(frozen=True, slots=True)
class Standing:
    """What a student comes to.

    Attributes:
        loss: of its outputs.
        metric: the user's, where there are labels.
        comparable: the training judges by this loss too, and not by inner tensors.
    """

    loss: float
    metric: float | None
    comparable: bool = True


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of a fit before the training, whose weights are left in a file.

    Attributes:
        seconds: that it took; of blocks those before a kill included.
        came: how the student stood before; None where there was nothing to fit.
    """

    seconds: float
    came: Standing | None

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Fitted:
        """As it stands in the file."""
        return cls(float(found["seconds"]), found["came"] and Standing(**found["came"]))


class Examiner:
    """Examines the student of a pair, whatever its weights are by then.

    Its first call costs a pass of student and teacher over what is held out, the next ones one of the student.

    Args:
        job: the training.
        subjects: student and teacher, on the device.
        device: of both.
        autocast: the context in which models run.
    """

    def __init__(
        self,
        job: Job,
        subjects: Subjects,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        pair = subjects.pair
        terms = make_terms(pair, job.training.losses, job.loss_options)
        self._comparable = all(term.final for _, term in judging(terms).values())
        if not self._comparable:  # each student would be judged by projections of its own
            terms = make_terms(pair, ((LOGITS, 1.0),), job.loss_options)
        runs = tuple(tuple(value.to(device) for value in inputs) for inputs in subjects.runs)
        start_terms(pair, terms, runs, None if subjects.labels is None else subjects.labels.to(device))
        alone = self._comparable and graduates(job, pair, terms)
        judges = judging(terms, graduates=alone)
        self._learner = Learner(pair, terms, tapped(pair.student, pair.outputs, tensors_of(terms)), graduates=alone)
        self._learner.to(device)
        self._feed = Feed(
            batches_of(job, terms),
            teacher_view(pair, terms),
            device,
            Changes(),
            input_kinds(job.batches),
            autocast,
            judges=frozenset(tensors_of(judges)),
        )
        self._metric = Measured.of(job, pair, self._feed)

    def __call__(self) -> Standing:
        """How the student stands."""
        return Standing(self.loss(), self._metric(), self._comparable)

    def loss(self) -> float:
        """Its loss alone."""
        return held_out_loss(self._learner, self._feed)
