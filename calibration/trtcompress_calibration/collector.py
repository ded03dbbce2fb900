"""Runs batches through the float model and keeps what its tensors held."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from trtcompress_graph.errors import DataError
from trtcompress_graph.model import Model

from .batching import fixed_batch
from .blocked import has_blocks
from .dependence import dependence
from .histogram import Extremes, Histogram
from .masks import finite, infinite_by_design
from .samples import Array, Batch
from .tapped_session import TappedSession
from .taps import Taps

if TYPE_CHECKING:
    import onnx

_WORTH_A_THREAD = 1 << 17
"""With fewer values in a batch than this, handing them to threads costs more than it gains."""


class Collector:
    """Statistics of the tapped tensors over the batches that were read.

    Args:
        model: the float model.
        graph: of the model, without its weights.
        taps: tensors to read.
        threads: for the model and for counting.
        source: where the samples come from, for messages.

    Attributes:
        statistics: by tensor, in the order of the graph.
    """

    def __init__(self, model: Model, graph: onnx.ModelProto, taps: Taps, threads: int, source: str = "") -> None:
        self._model = model
        self._source = source
        self._makers = {name: node for node in graph.graph.node for name in node.output}
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._masked = infinite_by_design(graph)
        on = dependence(graph)
        wanted = (*taps.histogram, *taps.extremes)
        per_shape = sorted(on.on_shapes.intersection(wanted))
        tensors = [name for name in wanted if name not in on.on_shapes]
        fixed = on.shaped_by_values.isdisjoint(tensors)
        self._session = TappedSession(model, tensors, threads, reuse=fixed, any_order=has_blocks(graph))
        self._once = TappedSession(model, per_shape, threads, reuse=False) if per_shape else None
        self._once_read = self._once.tapped if self._once is not None else []
        known = {*self._session.tapped, *self._once_read, *(spec.name for spec in model.inputs)}
        self.statistics: dict[str, Extremes] = {name: Histogram() for name in taps.histogram if name in known}
        self.statistics |= {name: Extremes() for name in taps.extremes if name in known}

    def twin(self) -> Collector:
        """One that reads other batches of the same model at the same time, into statistics of its own."""
        twin = copy.copy(self)
        twin._session = self._session.twin()
        twin._once = self._once and self._once.twin()
        twin.statistics = {name: type(value)() for name, value in self.statistics.items()}
        return twin

    def add(self, other: Collector) -> None:
        """Add what a twin read."""
        for name, value in self.statistics.items():
            value.add(other.statistics[name])

    def read(self, batch: Batch) -> None:
        """Run a batch and count its tensors.

        Raises:
            DataError: the model fails on it, or a tensor becomes NaN or infinite.
        """
        tensors = {**batch.inputs, **self._run(self._session, batch.inputs, batch)}
        failed = self._update({name: tensors[name] for name in self.statistics if name not in self._once_read})
        if self._once is not None:
            failed += self._read_once(self._once, batch)
        if failed:
            raise self._not_finite(failed, batch)

    def _read_once(self, session: TappedSession, batch: Batch) -> list[str]:
        """What follows from shapes is read for one sample, and counts for all of the batch."""
        alone = batch.count == 1 or fixed_batch(self._model.inputs) is not None
        feeds = batch.inputs if alone else batch.first()
        failed = []
        for name, array in self._run(session, feeds, batch).items():
            part = type(self.statistics[name])()
            try:
                part.update(self._seen(name, array))
            except ValueError:
                failed.append(name)
            else:
                self.statistics[name].add(part, 1 if alone else batch.count)
        return failed

    def _update(self, tensors: Mapping[str, Array]) -> list[str]:
        """Count the tensors, the largest first; gives the names of those that are not finite."""

        def one(name: str) -> str | None:
            try:
                self.statistics[name].update(self._seen(name, tensors[name]))
            except ValueError:
                return name
            return None

        names = sorted(tensors, key=lambda name: -tensors[name].size)
        few = sum(array.size for array in tensors.values()) < _WORTH_A_THREAD
        done = map(one, names) if few or self._pool is None else self._pool.map(one, names)
        return [name for name in done if name is not None]

    def _seen(self, name: str, array: Array) -> Array:
        return finite(array) if name in self._masked else array

    def _run(self, session: TappedSession, feeds: Mapping[str, Array], batch: Batch) -> Mapping[str, Array]:
        try:
            return session.run(feeds)
        except Exception as error:  # ONNX Runtime's exceptions share no base
            shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in feeds.items())
            raise DataError(
                f"the model fails on these inputs ({shapes}): {next(iter(str(error).splitlines()), '')}",
                where=f"{self._source or self._model.path}: {_numbers(batch)}",
                hint="lengths, or values such as indices, are not those that the model was made for",
            ) from error

    def _not_finite(self, failed: list[str], batch: Batch) -> DataError:
        """Blames an input that holds them, else the first of the tensors in the order of the graph."""
        where = f"{self._source or self._model.path}: {_numbers(batch)}"
        for name, array in batch.inputs.items():
            if name not in self._masked and array.dtype.kind == "f" and not np.isfinite(array).all():
                hint = "leave these samples out, or mend how they are preprocessed"
                return DataError(f"the input '{name}' holds NaN or infinity", where=where, hint=hint)
        first = next((name for name in self._makers if name in failed), failed[0])
        node = self._makers.get(first)
        maker = f", made by node '{node.name}' ({node.op_type})," if node is not None else ""
        return DataError(
            f"the tensor '{first}'{maker} becomes NaN or infinite",
            where=where,
            hint="the float model itself does so on this data: check its preprocessing (mean, std, scale)",
        )


def read_all(collectors: Sequence[Collector], batches: Iterable[Batch]) -> Iterator[int]:
    """Hand each batch to a collector that is free; gives how many samples each held, in their order.

    Raises:
        DataError: that of the first batch that has one.
    """
    free: SimpleQueue[Collector] = SimpleQueue()
    for collector in collectors:
        free.put(collector)

    def read(batch: Batch) -> int:
        collector = free.get()
        try:
            collector.read(batch)
        finally:
            free.put(collector)
        return batch.count

    under_way: deque[Future[int]] = deque()
    with ThreadPoolExecutor(len(collectors)) as pool:
        for batch in batches:
            under_way.append(pool.submit(read, batch))
            if len(under_way) > len(collectors):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _numbers(batch: Batch) -> str:
    return f"{'sample' if batch.count == 1 else 'samples'} {', '.join(map(str, batch.indices))}"
