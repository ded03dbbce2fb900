"""Calibration: one pass of the samples through the float model, and what its tensors held as ranges.

Nothing grows with the number of samples, and nothing depends on how they are batched or ordered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Thread

from trtcompress_graph.cores import usable_cores
from trtcompress_graph.errors import DataError
from trtcompress_graph.model import Model
from trtcompress_graph.protos import nodes
from trtcompress_graph.quantized_ops import is_quantized
from trtcompress_graph.ranges import VERSION, Ranges, TensorRange

from .batching import batches, fixed_batch
from .collector import Collector, read_all
from .data import Dataset
from .histogram import Extremes, Histogram, bulk_magnitude, load_kernels, share_beyond
from .methods import find_method, threshold
from .refusals import refuse_functions, refuse_quantized
from .samples import Batch, Sample
from .stateful import Steps
from .taps import Taps, read_skeleton, taps_of

__all__ = ["Measured", "Taps", "calibrate", "measure", "ranges_of"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What the tensors of a model held over some samples.

    Attributes:
        statistics: by tensor that was read.
        aliases: tensors that hold the values of another one that was read.
    """

    model_sha256: str
    statistics: Mapping[str, Extremes]
    aliases: Mapping[str, str]
    samples: int

    def ranges(self, method: str) -> Ranges:
        """Thresholds by a method.

        Raises:
            UsageError: there is no such method.
        """
        find_method(method)
        return ranges_of(self.statistics, self.aliases, self.model_sha256, method, self.samples)

    def __add__(self, other: Measured) -> Measured:
        """Of the samples of both; the same to the last bit as if they had been read together.

        Raises:
            DataError: they are of two models.
        """
        if self.model_sha256 != other.model_sha256:
            raise DataError("what was measured on two models does not add up", hint="measure one model on all samples")
        statistics: dict[str, Extremes] = {}
        for name, value in self.statistics.items():
            statistics[name] = type(value)()
            statistics[name].add(value)
            statistics[name].add(other.statistics[name])
        return Measured(self.model_sha256, statistics, self.aliases, self.samples + other.samples)


def calibrate(
    model: Model,
    dataset: Iterable[Sample],
    *,
    method: str = "entropy",
    batch_size: int = 8,
    candidates: Taps | None = None,
    progress: Callable[[int], None] | None = None,
    threads: int = 0,
) -> Ranges:
    """Measure the ranges of a model's activations.

    Args:
        model: the float model.
        dataset: samples that fit it.
        method: how thresholds are chosen; see `methods.METHODS`.
        batch_size: samples that go through the model together; it changes the speed, not the result.
        candidates: the tensors to read, if not those of `taps.tapped_tensors`.
        progress: told after each batch how many samples were read.
        threads: for the model and for counting; 0 is one for each core.

    Raises:
        DataError: there are no samples, or the model fails on one, or a tensor becomes NaN or infinite.
        ModelError: the model is quantized already or calls functions of its own, or ONNX Runtime refuses it.
        UsageError: there is no such method.
    """
    find_method(method)
    return measure(
        model, dataset, batch_size=batch_size, candidates=candidates, progress=progress, threads=threads
    ).ranges(method)


def measure(
    model: Model,
    dataset: Iterable[Sample],
    *,
    batch_size: int = 8,
    candidates: Taps | None = None,
    progress: Callable[[int], None] | None = None,
    threads: int = 0,
) -> Measured:
    """One pass of the samples; arguments and errors as those of `calibrate`.

    Batches go through the model side by side, one a thread with statistics of its own, which are added in the end:
    no core waits for another one inside a layer. At most `batch_size` samples are under way together, so that memory
    (their tensors that are read) does not grow with the cores.
    """
    preload()
    graph = read_skeleton(model)
    refuse_quantized([node.name or node.op_type for node in nodes(graph) if is_quantized(node.op_type)], model)
    refuse_functions(graph, model)
    taps = candidates or taps_of(graph)
    source = dataset.source if isinstance(dataset, Dataset) else ""
    cores = threads or usable_cores()
    workers = min(cores, max(1, batch_size // (fixed_batch(model.inputs) or 1)))
    first = Collector(model, graph, taps, cores // workers, source)
    collectors = [first, *(first.twin() for _ in range(1, workers))]
    samples = 0
    for count in read_all(collectors, _full_batches(dataset, model, max(1, batch_size // workers))):
        samples += count
        if progress is not None:
            progress(samples)
    for other in collectors[1:]:
        first.add(other)
    return Measured(model.digest, first.statistics, taps.aliases, samples)


def preload() -> None:
    """Load beside other work what counting needs, which takes a third of a second the first time."""
    Thread(target=load_kernels, daemon=True).start()


def ranges_of(
    statistics: Mapping[str, Extremes], aliases: Mapping[str, str], model_sha256: str, method: str, samples: int
) -> Ranges:
    """Thresholds from what was counted."""
    read = {name: value for name, value in statistics.items() if value.count}
    with ThreadPoolExecutor(usable_cores()) as pool:
        tensors = dict(zip(read, pool.map(lambda value: _range(value, method, samples), read.values()), strict=True))
    tensors |= {name: tensors[source] for name, source in aliases.items() if source in tensors}
    return Ranges(VERSION, model_sha256, method, samples, tensors)


def _range(value: Extremes, method: str, samples: int) -> TensorRange:
    if not isinstance(value, Histogram):
        return TensorRange(value.min, value.max, None, 0.0, samples=samples)
    kept = threshold(value, method)
    clipped, bulk = share_beyond(value, kept), bulk_magnitude(value)
    return TensorRange(value.min, value.max, kept, clipped, method, samples, bulk)


def _full_batches(dataset: Iterable[Sample], model: Model, batch_size: int) -> Iterator[Batch]:
    """All batches but one that had to be filled up with repeated samples, which would count twice.

    Raises:
        DataError: there is none.
    """
    fixed = fixed_batch(model.inputs)
    given = used = 0
    steps = dataset.batches(batch_size) if isinstance(dataset, Steps) else None
    for batch in steps or batches(dataset, model.inputs, batch_size):
        given += batch.count
        if batch.repeated:
            continue
        used += batch.count
        yield batch
    if used == given and given:
        return
    what = f"{given - used} of {given} samples do not fill a batch of {fixed}, the model's fixed size"
    if used:
        _log.warning("%s: they are left out", what)
        return
    raise DataError(
        what if given else "there are no samples",
        where=str(model.path),
        hint=f"give at least {fixed} samples of equal shape" if fixed else "name data that holds at least one sample",
    )
