"""Samples of a build, opened for a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trtcompress_graph.callables import is_callable_name, load_callable
from trtcompress_graph.errors import DataError
from trtcompress_graph.model import Model

from .stage import DataRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trtcompress_calibration.data import Dataset
    from trtcompress_calibration.stateful import Sequences


def open_data(data: DataRef, model: Model, samples: int | None = None) -> Dataset:
    """Open what the config names, to learn from: of a model that remembers, single steps with the states it gave.

    Args:
        data: where the samples come from.
        model: what they are for.
        samples: how many at the most, instead of what the config says.

    Raises:
        UsageError: the model has no such state.
        DataError: the samples do not fit the model, or there are none.
    """
    if data.state:
        from trtcompress_calibration.stateful import Steps

        return Steps(_sequences(data, model, samples), model)
    return _plain(data, model, samples)


def open_evaluation(data: DataRef, model: Model) -> Dataset:
    """Open what the config names, to judge by: of a model that remembers, whole sequences.

    Raises:
        UsageError: the model has no such state.
        DataError: the samples do not fit the model, or there are none.
    """
    return _sequences(data, model, None) if data.state else _plain(data, model, None)


def _sequences(data: DataRef, model: Model, samples: int | None) -> Sequences:
    from trtcompress_calibration.stateful import open_sequences

    return open_sequences(data.source, model, data.state, samples=samples or data.samples, base=data.base)


def _plain(data: DataRef, model: Model, samples: int | None) -> Dataset:
    from trtcompress_calibration.data import Preprocess, open_dataset
    from trtcompress_calibration.validate import MissingInputError

    try:
        return open_dataset(
            data.source,
            model.inputs,
            samples=samples or data.samples,
            preprocess=Preprocess(**data.preprocess) if data.preprocess else None,
            base=data.base,
        )
    except MissingInputError as error:
        states = _states(model, error.inputs)
        if not states:
            raise
        options = " ".join(f"--state {name}={output}" for name, output in states.items())
        keys = ", ".join(f"{name}: {output}" for name, output in states.items())
        hint = f"{error.hint}; if the model remembers, feed it from its outputs: {options}, or data.state {{{keys}}}"
        raise DataError(error.what, where=error.where, hint=hint) from error


def _states(model: Model, missing: Sequence[str]) -> dict[str, str]:
    """An output of the same type and shape for each of the inputs; empty where one has none."""
    left, found = list(model.outputs), {}
    for spec in (held for held in model.inputs if held.name in missing):
        fits = [made for made in left if (made.dtype, made.shape) == (spec.dtype, spec.shape)]
        if not fits:
            return {}
        found[spec.name] = fits[0].name
        left.remove(fits[0])
    return found


def raw_samples(data: DataRef, count: int) -> Iterator[dict[str, NDArray[Any]]]:
    """The first samples as they are, for a network whose inputs nothing tells: arrays with a sample axis of length 1.

    Raises:
        DataError: the source is not one whose arrays have names (a folder of images).
    """
    arrays = {name: array for name, array in _first_arrays(data).items() if name != "labels"}
    for index in range(min(count, *map(len, arrays.values())) if arrays else 0):
        yield {name: array[index : index + 1] for name, array in arrays.items()}


def _first_arrays(data: DataRef) -> Mapping[str, NDArray[Any]]:
    path = data.base / data.source
    if is_callable_name(data.source) and not path.exists():
        return _first_item(data)
    file = next(iter(sorted(path.glob("*.npz"))), None) if path.is_dir() else path
    if file is None or file.suffix != ".npz":
        raise DataError(
            "a pickled module needs samples whose arrays have the names of its inputs",
            where=str(path),
            hint="give an .npz, a folder of .npz, or package.module:function",
        )
    import numpy as np

    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _first_item(data: DataRef) -> Mapping[str, NDArray[Any]]:
    function = load_callable(data.source, data.base)
    try:
        return dict(next(iter(function())))
    except (Exception, SystemExit) as error:  # the user's own code can raise anything
        raise DataError(
            f"the function failed: {type(error).__name__}: {error}",
            where=data.source,
            hint="it is called without arguments and yields dicts of arrays",
        ) from error
