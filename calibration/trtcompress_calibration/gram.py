"""Streamed second moments of what a layer reads, and of what its outputs lack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.cores import one_blas_thread, usable_cores
from trtcompress_graph.errors import DataError
from trtcompress_graph.model import Model
from trtcompress_graph.shapes import Shape

from .batching import full_batches
from .layers import Ints, Layer
from .samples import Sample
from .tapped_session import TappedSession

Doubles = NDArray[np.float64]

MOST_FEATURES = 4608
"""Wider layers (512 channels under 3 x 3 have just as many) get the moments of their channels alone."""

_MEMORY = 600 << 20
"""Bytes of all matrices that one pass sums up."""

_WAITING = 1 << 20
"""Elements of rows that wait, at most."""

_CHUNK = 1 << 23
"""Elements of rows that are multiplied at once."""


class Gram:
    """Sums over rows in float64; the products are float32.

    Leading axes are systems of their own, such as the channels of a depthwise layer. A few rows wait until there are
    enough to be multiplied together.

    Attributes:
        count: rows so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: list[Doubles] = []
        self._waiting: list[tuple[NDArray[Any], ...]] = []
        self._held = 0

    def add(self, rows: NDArray[Any], targets: NDArray[Any] | None = None) -> None:
        """Add rows [..., n, features] and, if wanted, their targets [..., n, outputs]."""
        self.count += rows.shape[-2]
        arrays = (rows,) if targets is None else (rows, targets)
        step = max(1, _CHUNK // max(1, rows.size // max(1, rows.shape[-2])))
        if rows.size < _WAITING:
            self._waiting.append(tuple(array.copy() for array in arrays))
            self._held += rows.size
        else:
            for start in range(0, rows.shape[-2], step):
                self._multiply(*(array[..., start : start + step, :] for array in arrays))
        if self._held >= _WAITING:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._multiply(*(np.concatenate(parts, axis=-2) for parts in zip(*self._waiting, strict=True)))
            self._waiting, self._held = [], 0

    def _multiply(self, rows: NDArray[Any], targets: NDArray[Any] | None = None) -> None:
        ones, turned = np.ones(rows.shape[-2], np.float32), np.swapaxes(rows, -1, -2)
        with np.errstate(over="ignore", invalid="ignore"):  # whoever reads the sums looks whether they are finite
            new = [np.matmul(ones, rows), np.matmul(turned, rows)]
            if targets is not None:
                new += [np.matmul(ones, targets), np.matmul(turned, targets)]
        if not self._sums:
            self._sums = [np.zeros(part.shape) for part in new]
        for total, part in zip(self._sums, new, strict=True):
            total += part

    def _total(self, place: int) -> Doubles:
        self._flush()
        return self._sums[place] if self._sums else np.zeros(())

    @property
    def sums(self) -> Doubles:
        """Sum of the rows, [..., features]."""
        return self._total(0)

    @property
    def products(self) -> Doubles:
        """Sum of `row row^T`, [..., features, features]."""
        return self._total(1)

    @property
    def target_sums(self) -> Doubles:
        """Sum of the targets, [..., outputs]."""
        return self._total(2)

    @property
    def cross(self) -> Doubles:
        """Sum of `row target^T`, [..., features, outputs]."""
        return self._total(3)

    def __add__(self, other: Gram) -> Gram:
        both = Gram()
        both.count = self.count + other.count
        self._flush()
        other._flush()
        if self._sums and other._sums:
            both._sums = [one + more for one, more in zip(self._sums, other._sums, strict=True)]
        else:
            both._sums = [total.copy() for total in self._sums or other._sums]
        return both

    @property
    def mean(self) -> Doubles:
        """Mean row."""
        return self.sums / self.count

    @property
    def covariance(self) -> Doubles:
        """Second moments about the mean."""
        mean = self.mean
        return self.products / self.count - mean[..., :, None] * mean[..., None, :]

    @property
    def target_mean(self) -> Doubles:
        """Mean target."""
        return self.target_sums / self.count

    @property
    def cross_covariance(self) -> Doubles:
        """Second moments of rows and targets about their means."""
        return self.cross / self.count - self.mean[..., :, None] * self.target_mean[..., None, :]


def row_limit(layer: Layer, x: Shape, limit: int) -> int:
    """Rows that are enough for a layer: fewer, the more a row costs, but four times the unknowns."""
    if layer.kind == "depthwise":
        return min(limit, 2000 * (layer.window + 1))
    features = layer.features(x)
    return max(4 * features, min(limit, int(limit * (512 / features) ** 2)))


def sampled(seed: Sequence[int], count: int, share: float) -> Ints | None:
    """A share of the places 0 .. count, rising; None for all."""
    kept = max(1, round(share * count))
    if kept >= count:
        return None
    return np.sort(np.random.default_rng(seed).choice(count, kept, replace=False))


def collect_grams(
    model: Model,
    layers: Sequence[Layer],
    data: Iterable[Sample],
    *,
    shapes: Mapping[str, Shape],
    limit_rows: int = 400_000,
    as_written: bool = False,
    progress: Callable[[str, int, int | None], None] = lambda what, done, total: None,
) -> dict[str, Gram]:
    """Moments of what each layer reads, by its name; layers that read alike share them.

    A depthwise layer has one system a channel. A layer of more than `MOST_FEATURES` features has the moments of its
    channels, averaged over the window. One pass of the model does for as many layers as fit into memory; nothing
    grows with the samples.

    Args:
        model: the full model.
        layers: of its graph.
        data: samples that fit the model; read once a pass.
        shapes: concrete shape of every tensor at one sample.
        limit_rows: a layer sees about so many rows, taken from all samples; fewer where a row is wide.
        as_written: the model is quantized, and its Q/DQ pairs are computed as they are written.
        progress: told how many samples were read.

    Raises:
        DataError: there are no samples, the model fails on one, or what a layer reads overflows.
    """
    alike: dict[tuple[object, ...], list[Layer]] = {}
    for layer in layers:
        alike.setdefault((layer.kind == "depthwise", *layer.reads_alike()), []).append(layer)
    found: dict[str, Gram] = {}
    firsts = [same[0] for same in alike.values()]
    for part in passes(firsts, shapes):
        grams = _one_pass(model, part, data, limit_rows, as_written, progress)
        for same in alike.values():
            if same[0].name in grams:
                found |= {layer.name: grams[same[0].name] for layer in same}
    return found


def _size(layer: Layer, shapes: Mapping[str, Shape]) -> int:
    """Bytes of the matrix of a layer."""
    features, channels = layer.features(shapes[layer.x]), shapes[layer.x][layer.channel_axis]
    if layer.kind == "depthwise":
        return 8 * channels * layer.window**2
    return 8 * (features if features <= MOST_FEATURES else channels) ** 2


def passes(layers: Iterable[Layer], shapes: Mapping[str, Shape]) -> Iterator[list[Layer]]:
    """Layers in groups whose matrices fit into memory together."""
    part: list[Layer] = []
    held = 0
    for layer in layers:
        size = _size(layer, shapes)
        if part and held + size > _MEMORY:
            yield part
            part, held = [], 0
        part.append(layer)
        held += size
    if part:
        yield part


def _one_pass(
    model: Model,
    layers: Sequence[Layer],
    data: Iterable[Sample],
    limit: int,
    as_written: bool,
    progress: Callable[[str, int, int | None], None],
) -> dict[str, Gram]:
    total = _length(data)
    wanted = dict.fromkeys(layer.x for layer in layers)
    session = TappedSession(model, wanted, usable_cores(), reuse=False, as_written=as_written)
    grams = {layer.name: Gram() for layer in layers}
    done = 0
    with one_blas_thread(), ThreadPoolExecutor(usable_cores()) as pool:
        for number, batch in enumerate(full_batches(data, model.inputs)):
            try:
                held = {**batch.inputs, **session.run(batch.inputs)}
            except Exception as error:  # ONNX Runtime's exception classes share no base
                raise DataError(f"the model fails on it: {error}", where=f"sample {batch.indices[0]}") from error
            read = partial(_read, held, limit, (total or 0) / batch.count, number)
            list(pool.map(read, range(len(layers)), layers, grams.values()))
            done += batch.count
            progress("inputs of the layers", done, total)
    for name, gram in grams.items():
        if not np.isfinite(gram.products).all():
            raise DataError(
                f"what node '{name}' reads is NaN or infinite, or too great to be squared, on some sample",
                where="samples",
                hint="look at the samples' values and their preprocessing; a float16 model may overflow",
            )
    return grams


def _read(
    held: Mapping[str, NDArray[Any]], limit: int, batches: float, number: int, index: int, layer: Layer, gram: Gram
) -> None:
    """Add what one layer reads of a batch, its share of the rows of all batches."""
    x = held[layer.x]
    expected = layer.count(x.shape) * batches
    share = row_limit(layer, x.shape, limit) / expected if expected else 1.0
    _add(gram, layer, layer.rows(x, sampled((number, index), layer.count(x.shape), share)))


def _add(gram: Gram, layer: Layer, rows: NDArray[Any]) -> None:
    if layer.kind == "depthwise":
        rows = by_channel(rows, layer.window)
    elif rows.shape[1] > MOST_FEATURES:
        rows = rows.reshape(len(rows), -1, layer.window).mean(axis=2)
    gram.add(rows)


def by_channel(rows: NDArray[Any], window: int) -> NDArray[Any]:
    """Rows [n, channels * window] as one system a channel, [channels, n, window]."""
    return np.ascontiguousarray(rows.reshape(len(rows), -1, window).transpose(1, 0, 2))


def _length(data: Iterable[Sample]) -> int | None:
    total = getattr(data, "total", None)
    if total is None and isinstance(data, Sequence):
        total = len(data)
    return total
