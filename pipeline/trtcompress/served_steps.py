"""An engine served between the preprocessing of its calibration and a function of the user's, as one ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtcompress_graph.axes import Axes, AxisRange
from trtcompress_graph.errors import CompileError, DataError
from trtcompress_graph.model import Model, TensorSpec
from trtcompress_graph.target import Engine, Target

from .packaging import Around
from .profiles import named_axes
from .stage import DataRef, FunctionRef
from .user_code import code_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trtcompress_engines.triton.batching import Batching
    from trtcompress_engines.triton.options import TritonOptions
    from trtcompress_engines.triton.steps import Link

Arrays = Mapping[str, "NDArray[Any]"]

SAMPLES = 16
"""On so many samples a function is tried, one by one, and on some of them together."""

TOGETHER = 3
"""Samples of a batch on which a function is tried."""


def pack_steps(
    engine: Engine, target: Target, repository: Path, *, name: str, form: str, axes: Axes, around: Around,
    options: TritonOptions,
) -> None:  # fmt: skip
    """Write `NAME_model`, the engine; `NAME_preprocess` and `NAME_postprocess`, as asked; and `NAME`, their ensemble.

    The user's function is tried before anything is written.

    Args:
        engine: what to serve.
        target: what it was built for.
        repository: folder of models.
        name: of the ensemble.
        form: kind of repository, for the engine.
        axes: ranges of the dynamic axes, as in the config.
        around: what is served before and behind the engine.
        options: of the engine; the steps have as many instances.

    Raises:
        CompileError: the function cannot be imported, fails, or returns no dict of arrays.
        DataError: the samples do not fit the model.
    """
    from trtcompress_engines.triton.bound import as_bound
    from trtcompress_engines.triton.chain import write_chain
    from trtcompress_engines.triton.repository import write_repository
    from trtcompress_engines.triton.steps import Link, write_preprocess

    bound, emulate = as_bound(engine), target.how != "cpu"
    tried = try_steps(engine.graph, name=name, axes=axes, around=around, options=options, emulate=emulate, bound=bound)
    links = [Link(f"{name}_model", bound.inputs, bound.outputs)]
    own, batch = tried.axes, tried.batch
    write_repository(engine, target, repository, name=links[0].served, format=form, axes=own, options=options)
    if tried.image is not None and around.preprocess is not None:
        called = f"{name}_preprocess"
        links.insert(0, write_preprocess(repository, called, tried.image, around.preprocess, batch, own, options))
    if tried.behind is not None:
        links.append(tried.behind.write(repository, f"{name}_postprocess", batch, own, options))
    write_chain(repository, name, links, batch)


def try_steps(
    graph: Model, *, name: str, axes: Axes, around: Around, options: TritonOptions, emulate: bool = False,
    bound: Model | None = None,
) -> Tried:  # fmt: skip
    """Can this be served before and behind such a graph? The user's function is called on outputs for real samples.

    Costs an inference of at most `2 * SAMPLES` samples on ONNX Runtime, and a process for the function.

    Args:
        graph: of the engine; or the model that engines are made of, whose inputs and outputs they have.
        name: of the ensemble.
        axes: ranges of the dynamic axes, as in the config.
        around: what is served before and behind.
        options: of the engine.
        emulate: Q/DQ are computed as they are written.
        bound: the graph with the types that the engine takes and gives (see `bound.as_bound`), where they are others.

    Raises:
        CompileError: the function cannot be imported, fails, or returns what cannot be served.
        DataError: the samples do not fit the model, or images do not become its input.
    """
    from trtcompress_engines.triton.batching import batching
    from trtcompress_engines.triton.chain import check_ends
    from trtcompress_engines.triton.steps import check_travels, image_spec

    served = bound or graph
    own = named_axes(graph, axes)
    batch = batching(graph, own, options)
    image = _one_image(served, around.preprocess) if around.preprocess is not None else None
    behind = None
    if around.postprocess is not None:
        behind = _tried(graph, served.outputs, around.postprocess, around, batch.max_size, emulate)
        check_travels((*served.outputs, *behind.made))
    taken = served.inputs if image is None else (image_spec(image),)
    check_ends(name, taken, served.outputs if behind is None else behind.made)
    return Tried(own, batch, image, behind)


@dataclass(frozen=True, slots=True)
class Tried:
    """What is to be served, found to do.

    Attributes:
        axes: ranges of the graph's axes by their names.
        batch: how Triton batches.
        image: the input that images become.
        behind: the user's function.
    """

    axes: Axes
    batch: Batching
    image: TensorSpec | None
    behind: Behind | None


@dataclass(frozen=True, slots=True)
class Behind:
    """A user's function that was tried on the engine's outputs.

    Attributes:
        function: `package.module:function`.
        code: its files, by the place that they get.
        read: the engine's outputs.
        made: what it returns.
        axes: observed ranges of the dynamic axes of `read`.
    """

    function: str
    code: Mapping[str, Path]
    read: tuple[TensorSpec, ...]
    made: tuple[TensorSpec, ...]
    axes: Axes

    def write(self, repository: Path, name: str, batch: Batching, axes: Axes, options: TritonOptions) -> Link:
        """The model that calls it; ranges of the config go before those that were observed."""
        from trtcompress_engines.triton.steps import write_postprocess

        known = {axis for ranges in axes.values() for axis in ranges}
        more = {name: {a: r for a, r in ranges.items() if a not in known} for name, ranges in self.axes.items()}
        given = (self.read, self.made, self.function, self.code)
        return write_postprocess(repository, name, *given, batch, {**axes, **more}, options)


def _one_image(graph: Model, preprocess: Mapping[str, Any]) -> TensorSpec:
    """The input that images become.

    Raises:
        DataError: the model has several, or the section does not fit it.
    """
    from trtcompress_calibration.images import check_preprocess
    from trtcompress_calibration.samples import Preprocess

    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) not in (3, 4):
        told = ", ".join(f"'{spec.name}' of rank {len(spec.shape)}" for spec in graph.inputs)
        raise DataError(f"images become one input of rank 4; the model has {told}", where="triton.preprocess")
    check_preprocess(Preprocess(**preprocess), graph.inputs[0])
    return graph.inputs[0]


def _tried(
    graph: Model, read: tuple[TensorSpec, ...], function: FunctionRef, around: Around, most: int, emulate: bool
) -> Behind:
    """The function on what the graph makes of samples, here on ONNX Runtime; `most`: samples of a batch."""
    from trtcompress_engines.triton.trial import described, try_function

    code = code_of(function.source, function.base, around.sources, "triton.postprocess")
    assert around.samples is not None
    fed = [
        (count, {spec.name: arrays[spec.name].astype(spec.dtype, copy=False) for spec in read})
        for count, arrays in _outputs(graph, around.samples, most, emulate=emulate)
    ]
    made = try_function(function.source, code, [arrays for _, arrays in fed])
    counts = [count for count, _ in fed]
    for arrays in _stretched(read, fed[0][1], 1 if most else 0):
        with suppress(CompileError):  # no output of the engine, but it tells which axes follow
            made += try_function(function.source, code, [arrays])
            counts.append(counts[0])
    specs = described(function.source, made, counts if most else None)
    return Behind(function.source, code, read, specs, _observed(read, fed))


def _outputs(graph: Model, samples: DataRef, most: int, emulate: bool) -> Iterator[tuple[int, Arrays]]:
    """How many samples went in, and what came out: one by one, and where Triton batches some together."""
    from trtcompress_calibration.data import batches
    from trtcompress_engines.backends.onnxruntime import open_graph

    from .datasets import open_data

    data = list(open_data(samples, graph, SAMPLES))
    with open_graph(graph.path, emulate=emulate) as runner:
        for size in (1, min(TOGETHER, most)) if most > 1 else (1,):
            for batch in batches(data, graph.inputs, size):
                first = batch.inputs[graph.inputs[0].name]
                yield len(first) if first.ndim else 1, runner.infer(batch.inputs)


def _stretched(specs: Sequence[TensorSpec], arrays: Arrays, start: int) -> Iterator[Arrays]:
    """The arrays with each dynamic axis in turn twice as long; not that of the batch."""
    names = {dim for spec in specs for dim in spec.shape[start:] if isinstance(dim, str)}
    for name in sorted(names):
        longer = dict(arrays)
        for spec in specs:
            for axis, dim in enumerate(spec.shape):
                if dim == name and axis >= start:
                    longer[spec.name] = np.repeat(longer[spec.name], 2, axis)
        yield longer


def _observed(specs: Sequence[TensorSpec], fed: Sequence[tuple[int, Arrays]]) -> dict[str, dict[str, AxisRange]]:
    """Least and greatest length of each dynamic axis."""
    found: dict[str, dict[str, AxisRange]] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str):
                lengths = sorted(arrays[spec.name].shape[axis] for _, arrays in fed)
                usual = lengths[len(lengths) // 2]
                found.setdefault(spec.name, {})[dim] = AxisRange(lengths[0], usual, lengths[-1])
    return found
