"""Models that remember: an output is an input of the next step, and a sample is a sequence of steps.

In the data a sample of an ordinary input has a leading axis of steps. A state starts from zeros, or from an array of
its name in the data. While samples lie in batches, each array has its samples first, a state too, wherever the model
has that axis.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from trtcompress_graph.errors import UsageError
from trtcompress_graph.model import Dim, Model, TensorSpec

from .batching import batches
from .data import Dataset
from .samples import Array, Batch, Sample
from .sources import Chunk, Chunks, Request, open_source

Feed = Mapping[str, Array]
Run = Callable[[Feed], Feed]
"""One step: outputs by name from inputs by name."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a model remembers from step to step.

    Attributes:
        pairs: the output that each state input is fed from.
        stepped: what a sample holds for each other input, its axis of steps included.
        states: what a sample holds for each state, its first value.
        time: the axis of steps in each of `stepped`.
        places: the axis of samples of each state in the model; None where it has none.
        counted: the axis of samples of each output of the model; None where it has none.
    """

    pairs: Mapping[str, str]
    stepped: tuple[TensorSpec, ...]
    states: tuple[TensorSpec, ...]
    time: Mapping[str, int]
    places: Mapping[str, int | None]
    counted: Mapping[str, int | None]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a sample holds."""
        return (*self.stepped, *self.states)

    def walk(self, run: Run, sequences: Feed) -> Iterator[tuple[dict[str, Array], Feed]]:
        """Inputs and outputs of each step, the states as `run` gives them."""
        held = {name: _moved(sequences[name], 0, place) for name, place in self.places.items()}
        first = self.stepped[0].name
        for step in range(sequences[first].shape[self.time[first]]):
            given = {name: np.take(sequences[name], step, axis) for name, axis in self.time.items()}
            given |= {name: np.ascontiguousarray(array) for name, array in held.items()}
            made = run(given)
            yield given, made
            held = {name: np.asarray(made[output]) for name, output in self.pairs.items()}

    def run(self, run: Run, sequences: Feed) -> dict[str, Array]:
        """Outputs of all steps: samples first, then steps, then the rest (all of it, where no samples are counted)."""
        steps = [made for _, made in self.walk(run, sequences)]
        return {name: self._stacked(name, [made[name] for made in steps]) for name in steps[0]}

    def first(self, sequences: Feed) -> dict[str, Array]:
        """Inputs of the first step."""
        given, _ = next(self.walk(lambda feed: {output: feed[name] for name, output in self.pairs.items()}, sequences))
        return given

    def _stacked(self, name: str, steps: Sequence[Array]) -> Array:
        place = self.counted.get(name)
        if place is None:
            return np.stack(steps)[None]
        return np.stack([np.moveaxis(np.asarray(array), place, 0) for array in steps], 1)


def feedback(model: Model, state: Mapping[str, str]) -> Feedback:
    """What a model remembers.

    Args:
        model: the model.
        state: the output that each state input is fed from.

    Raises:
        UsageError: there is no such input or output, they do not fit each other, or nothing but states is left.
    """
    inputs = {spec.name: spec for spec in model.inputs}
    outputs = {spec.name: spec for spec in model.outputs}
    for name, output in state.items():
        _check_pair(_named(name, inputs, "input"), _named(output, outputs, "output"))
    others = [spec for spec in model.inputs if spec.name not in state]
    if not others:
        raise UsageError("every input is a state, so that there are no steps to read", where="data.state")
    batch = _batch(others)
    places = {name: _place(inputs[name].shape, batch) for name in state}
    steps = _free_name({dim for spec in model.inputs for dim in spec.shape})
    time = {spec.name: int(bool(spec.shape) and (spec.shape[0] in (1, batch))) for spec in others}
    return Feedback(
        pairs=dict(state),
        stepped=tuple(_with_steps(spec, time[spec.name], steps) for spec in others),
        states=tuple(_batch_first(inputs[name], place, batch) for name, place in places.items()),
        time=time,
        places=places,
        counted={spec.name: _counted(spec, batch, state.values()) for spec in model.outputs},
    )


class Sequences(Dataset):
    """Whole sequences, for models that are run with states of their own."""

    def __init__(self, source: str, chunks: Chunks, fed: Feedback, samples: int | None = None) -> None:
        super().__init__(source, _with_states(chunks, fed), fed.inputs, samples)
        self.feedback = fed


class Steps(Dataset):
    """Single steps of sequences, each with the state that the float model gave: what can be learned from.

    They come in order, one sequence after the other; the states do not depend on how many are run side by side.

    Args:
        sequences: the data.
        model: the float model.

    Attributes:
        sequences: what the steps are of.
        fed: what the model remembers between them.
    """

    def __init__(self, sequences: Sequences, model: Model) -> None:
        assert sequences.feedback is not None
        self.source, self.notes = sequences.source, sequences.notes
        self.total, self.labelled = None, False
        self.inputs, self.feedback = model.inputs, None
        self.sequences: Iterable[Sample] = sequences
        self.fed, self._model = sequences.feedback, model

    def of(self, sequences: Iterable[Sample]) -> Steps:
        """Steps of other sequences, such as a part of these."""
        other = copy.copy(self)
        other.sequences = sequences
        return other

    def __iter__(self) -> Iterator[Sample]:
        for batch in self.batches(1):
            yield Sample(batch.inputs)

    def batches(self, size: int) -> Iterator[Batch]:
        """Steps of sequences of equal length side by side; the numbers are those of the sequences."""
        run = _runs(self._model)
        axes = {name: place for name, place in self.fed.places.items() if place}
        for batch in batches(self.sequences, self.fed.inputs, size):
            for given, _ in self.fed.walk(run, batch.inputs):
                yield replace(batch, inputs=given, labels=None, axes=axes)


def open_sequences(
    source: str | Path, model: Model, state: Mapping[str, str], *, samples: int | None = None, base: Path
) -> Sequences:
    """Open data of a model that remembers.

    Args:
        source: as that of `open_dataset`, but no images.
        model: what the data is for.
        state: the output that each state input is fed from.
        samples: read no more sequences than this.
        base: folder that a relative path starts from.

    Raises:
        UsageError: see `feedback`.
        MissingPathError: there is no such file or folder.
        DataError: the data cannot be read or does not fit the model, or there is none.
    """
    fed = feedback(model, state)
    request = Request(str(source), base / source, fed.stepped, None, base, tuple(state))
    return Sequences(str(source), open_source(request), fed, samples)


def _with_states(chunks: Chunks, fed: Feedback) -> Chunks:
    """Zeros where the data does not say how a state starts; a given start with its samples first."""

    def filled() -> Iterator[Chunk]:
        for chunk in chunks():
            count = max((len(array) for array in chunk.arrays.values() if array.ndim), default=1)
            states = {spec.name: _start(spec, fed.places[spec.name], chunk, count) for spec in fed.states}
            yield replace(chunk, arrays={**chunk.arrays, **states})

    return filled


def _start(spec: TensorSpec, place: int | None, chunk: Chunk, count: int) -> Array:
    given = chunk.arrays.get(spec.name)
    if given is None:
        rest = spec.shape if place is None else spec.shape[1:]
        if not all(isinstance(dim, int) for dim in rest):
            raise UsageError(
                f"the lengths of the state '{spec.name}' are not known: {list(spec.shape)}",
                where=chunk.where,
                hint=f"give its first value with the data, as an array '{spec.name}'",
            )
        return np.zeros((count, *(int(dim) for dim in rest)), spec.dtype)
    return np.moveaxis(given, place + 1, 1) if place is not None and given.ndim == len(spec.shape) + 1 else given


def _runs(model: Model) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in model.outputs]
    return lambda feed: dict(zip(names, session.run(names, dict(feed)), strict=True))


def _named(name: str, known: Mapping[str, TensorSpec], kind: str) -> TensorSpec:
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    raise UsageError(
        f"the model has no {kind} '{name}'",
        where="data.state",
        hint=f"did you mean '{near[0]}'?" if near else f"its {kind}s are: {', '.join(known)}",
    )


def _check_pair(given: TensorSpec, made: TensorSpec) -> None:
    clash = len(given.shape) != len(made.shape) or any(
        isinstance(one, int) and isinstance(other, int) and one != other
        for one, other in zip(given.shape, made.shape, strict=True)
    )
    if given.dtype != made.dtype or clash:
        raise UsageError(
            f"the output '{made.name}' ({made.dtype} {list(made.shape)}) does not fit the input '{given.name}' "
            f"({given.dtype} {list(given.shape)}) of the next step",
            where="data.state",
            hint="name input and output of one and the same state: {INPUT: OUTPUT}",
        )


def _batch(others: Sequence[TensorSpec]) -> Dim | None:
    """The leading axis that the ordinary inputs share, if it counts samples: a name, or a fixed number above 1."""
    leading = {spec.shape[0] if spec.shape else 0 for spec in others}
    only = next(iter(leading)) if len(leading) == 1 else 0
    return only if isinstance(only, str) or only > 1 else None


def _place(shape: Sequence[Dim], batch: Dim | None) -> int | None:
    """Where a state has the axis of samples: the axis of that name, else its only dynamic axis."""
    if batch is None:
        return None
    wanted = [axis for axis, dim in enumerate(shape) if dim == batch]
    dynamic = [axis for axis, dim in enumerate(shape) if isinstance(dim, str)]
    found = wanted or (dynamic if isinstance(batch, str) else [])
    return found[0] if len(found) == 1 else None


def _counted(spec: TensorSpec, batch: Dim | None, states: Collection[str]) -> int | None:
    """Where an output has the axis of samples, one that is always 1 too."""
    if spec.name in states:
        return _place(spec.shape, batch)
    return 0 if spec.shape[:1] == (1,) or (batch is not None and spec.shape) else None


def _with_steps(spec: TensorSpec, axis: int, steps: str) -> TensorSpec:
    return TensorSpec(spec.name, spec.dtype, (*spec.shape[:axis], steps, *spec.shape[axis:]))


def _batch_first(spec: TensorSpec, place: int | None, batch: Dim | None) -> TensorSpec:
    if place is None or batch is None:
        return spec
    return TensorSpec(spec.name, spec.dtype, (batch, *spec.shape[:place], *spec.shape[place + 1 :]))


def _free_name(taken: set[Dim]) -> str:
    name = "steps"
    while name in taken:
        name += "_"
    return name


def _moved(array: Array, source: int, place: int | None) -> Array:
    return array if place is None else np.moveaxis(array, source, place)
