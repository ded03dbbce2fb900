"""How far the answers of a changed graph are from those of the model that it was made of, in one number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trtcompress_graph.model import Model

if TYPE_CHECKING:
    from trtcompress_calibration.samples import Sample
    from trtcompress_calibration.stateful import Feedback


def compared_tensors(model: Model) -> tuple[str, ...]:
    """What an error can be read from: see `trtcompress_graph.comparable`. Empty where nothing can be compared."""
    from trtcompress_calibration.opening import open_graph
    from trtcompress_graph.comparable import comparable

    given = {spec.name for spec in model.inputs}
    return tuple(name for name in comparable(open_graph(model, 1).graph) if name not in given)


def output_error(
    model: Model, graph: Model, samples: Iterable[Sample], tensors: Sequence[str], fed: Feedback | None = None
) -> float:
    """Squared error of the tensors over their variance, the greatest of all.

    Infinite where a tensor has another shape than in the model, or is not finite where it is in the model, or where no
    tensor holds a number.

    Args:
        model: the float model.
        graph: made of it; Q/DQ pairs are computed as they are written.
        samples: read once.
        tensors: that are compared; outputs, or tensors inside.
        fed: of a model that remembers: a sample is then a sequence, and each graph goes on from its own states.
    """
    from trtcompress_calibration.batching import batches
    from trtcompress_engines.backends.onnxruntime import open_graph

    more = [name for name in tensors if name not in {spec.name for spec in model.outputs}]
    sums = {name: np.zeros(4) for name in tensors}
    with open_graph(model.path, more=more) as exact, open_graph(graph.path, emulate=True, more=more) as tried:
        for batch in batches(samples, fed.inputs if fed else model.inputs, 8):
            feeds = dict(batch.inputs)
            wanted, found = (fed.run(run, feeds) if fed else run(feeds) for run in (exact.infer, tried.infer))
            for name in tensors:
                sums[name] += _sums(wanted[name].astype(np.float64), found[name].astype(np.float64))
    return max((_error(*map(float, held)) for held in sums.values() if held[3]), default=math.inf)


def _sums(wanted: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Squared error, squares, sum and count. Infinities that both have are masks, and carry nothing."""
    if wanted.shape != found.shape:
        return np.array([math.inf, 0, 0, 1])
    usable = np.isfinite(wanted) & np.isfinite(found)
    same = (wanted == found) | (np.isnan(wanted) & np.isnan(found))
    if not (usable | same).all():
        return np.array([math.inf, 0, 0, 1])
    y = wanted[usable]
    return np.array([np.square(found[usable] - y).sum(), np.square(y).sum(), y.sum(), y.size])


def _error(lost: float, squares: float, total: float, count: float) -> float:
    return lost / max(squares - total * total / count, float(np.finfo(np.float64).tiny))
