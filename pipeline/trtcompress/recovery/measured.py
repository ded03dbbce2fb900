"""The metric of a student while it is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trtcompress_engines.metrics import find_metric
from trtcompress_graph.errors import TrtCompressError

from .feed import Feed
from .losses.labels import IGNORED
from .pairs import Pair
from .taps import tapped

if TYPE_CHECKING:
    from .job import Job

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The first metric of the user's, on the samples that are held out."""

    job: Job
    pair: Pair
    feed: Feed
    _said: set[str] = field(default_factory=set)

    @staticmethod
    def of(job: Job, pair: Pair, feed: Feed) -> Callable[[], float | None]:
        """The metric of a training; None is all that it tells where there is no metric, or nothing to measure it by."""
        measurable = job.metrics and job.pool.labels is not None
        return Measured(job, pair, feed) if measurable else lambda: None

    @torch.no_grad()
    def __call__(self) -> float | None:
        """Of the student as it is; None where it cannot be computed on so few samples."""
        view = tapped(self.pair.student, self.pair.outputs, self.pair.outputs)
        found: dict[str, list[Any]] = {name: [] for name in self.pair.outputs}
        labels: list[Any] = []
        pool = self.job.pool
        for group, rows in self.job.batches.judged():
            arrays = pool.read(group, rows)
            answers = view(*(torch.from_numpy(arrays[spec.name]).to(self.feed.device) for spec in pool.inputs))
            assert pool.labels is not None
            told = pool.labels.at(pool.groups[group].places[rows].tolist())
            counts = [label.ndim > 0 or label != IGNORED for label in told]
            for name, value in answers.items():
                array = value.float().cpu().numpy() if value.is_floating_point() else value.cpu().numpy()
                each = list(array[: len(rows)]) if array.ndim and pool.groups[group].stacks else [array]
                found[name] += compress(each, counts)
            labels += compress(told, counts)
        if not labels:
            return None
        ref = self.job.metrics[0]
        try:
            metric = find_metric(ref.name, ref.base)
            read = metric.reads({name: _stacked(values) for name, values in found.items()})
            score = metric.score(read, _stacked(labels))
        except TrtCompressError as error:
            if error.what not in self._said:
                self._said.add(error.what)
                _log.warning("%s is not told of the training: %s", ref.name, error.what)
            return None
        return float(np.mean(score))


def _stacked(values: list[Any]) -> Any:
    same = len({np.shape(value) for value in values}) == 1
    return np.stack(values) if same else values
