"""Does a sample fit the model? Checked before anything runs, with words that tell what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches

import numpy as np

from trtcompress_graph.errors import DataError
from trtcompress_graph.model import TensorSpec

from .samples import Array, Sample


class MissingInputError(DataError):
    """The samples lack arrays of inputs; `inputs` names them, unless one has just another name."""

    inputs: tuple[str, ...] = ()


def validate_sample(
    sample: Sample, inputs: Sequence[TensorSpec], where: str, note: Callable[[str], None] = lambda _: None
) -> Sample:
    """Check a sample and give it the model's types.

    Args:
        sample: what was read.
        inputs: inputs of the model.
        where: source and number of the sample, for messages.
        note: told of each cast, once for each sample.

    Raises:
        DataError: an input is missing, or has a wrong rank, length or type, or holds NaN or infinity.
    """
    check_names(sample.inputs, inputs, where)
    lengths: dict[str, tuple[int, str]] = {}
    cast = {}
    for spec in inputs:
        place = f"{where}: input '{spec.name}'"
        array = sample.inputs[spec.name]
        check_shape(array, spec, place)
        _check_shared_axes(array, spec, place, lengths)
        cast[spec.name] = _cast(array, spec, place, note)
    return Sample(cast, sample.label)


def check_names(names: Iterable[str], inputs: Sequence[TensorSpec], where: str) -> None:
    """Every input must be there.

    Raises:
        MissingInputError: one is missing; the nearest of the other names is proposed.
    """
    given = list(names)
    wanted = {spec.name for spec in inputs}
    for spec in inputs:
        if spec.name in given:
            continue
        spare = [name for name in given if name not in wanted]
        near = get_close_matches(spec.name, spare, n=1, cutoff=0.4) or (spare if len(spare) == 1 else [])
        found = ", ".join(f"'{name}'" for name in sorted(given)) or "nothing"
        error = MissingInputError(
            f"the data has no array for the input '{spec.name}'; it has {found}",
            where=where,
            hint=f"rename '{near[0]}' to '{spec.name}'"
            if near
            else f"name the arrays like the inputs of the model: {', '.join(sorted(wanted))}",
        )
        error.inputs = () if near else tuple(name for name in (held.name for held in inputs) if name not in given)
        raise error


def check_lengths(shapes: Mapping[str, tuple[int, ...]], where: str) -> int:
    """Number of samples in stacked arrays of these shapes.

    Raises:
        DataError: the arrays, the labels included, differ in length.
    """
    lengths = {shape[:1] for shape in shapes.values()}
    if len(lengths) == 1 and lengths != {()}:
        return lengths.pop()[0]
    listed = ", ".join(f"'{name}' has {shape[0] if shape else 'no axis'}" for name, shape in shapes.items())
    raise DataError(
        f"the arrays differ in their number of samples: {listed}",
        where=where,
        hint="the first axis of every array, the labels too, counts the samples",
    )


def check_shape(array: Array, spec: TensorSpec, place: str) -> None:
    """The shape of one sample must be one that the model takes; an axis of fixed batch size may also be 1.

    Raises:
        DataError: wrong rank or length.
    """
    got, want = _shape(array.shape), _shape(spec.shape)
    if array.ndim != len(spec.shape):
        raise DataError(
            f"samples of shape {got} have the wrong rank: the model wants {want}",
            where=place,
            hint=f"store the samples with rank {len(spec.shape)}; the first axis counts the samples",
        )
    for axis, (length, dim) in enumerate(zip(array.shape, spec.shape, strict=True)):
        if length == 0:
            raise DataError(f"a sample of shape {got} is empty", where=place, hint="remove the sample")
        if isinstance(dim, int) and length != dim and not (axis == 0 and length == 1):
            raise DataError(
                f"a sample of shape {got}: axis {axis} is {length} long, the model wants {want}",
                where=place,
                hint=_shape_hint(array.shape, spec),
            )


def _shape_hint(got: tuple[int, ...], spec: TensorSpec) -> str:
    """Swapped axes are the usual mistake."""
    if len(got) == 4 and got[1:] != spec.shape[1:] and (got[3], got[1], got[2]) == spec.shape[1:]:
        return "the channels stand last (NHWC) but the model wants them second (NCHW): transpose the data"
    if len(got) == 4 and (got[2], got[3], got[1]) == spec.shape[1:]:
        return "the channels stand second (NCHW) but the model wants them last (NHWC): transpose the data"
    return "resize or cut the data, or export the model with this axis dynamic"


def _check_shared_axes(array: Array, spec: TensorSpec, place: str, lengths: dict[str, tuple[int, str]]) -> None:
    """A dynamic axis has one length in all inputs that carry its name."""
    for got, want in zip(array.shape, spec.shape, strict=True):
        if not isinstance(want, str):
            continue
        first, name = lengths.setdefault(want, (got, spec.name))
        if got != first:
            raise DataError(
                f"the axis '{want}' has length {got} here, but {first} in the input '{name}'",
                where=place,
                hint="give all inputs of a sample the same length on that axis",
            )


def _cast(array: Array, spec: TensorSpec, place: str, note: Callable[[str], None]) -> Array:
    """The array in the model's type: nothing but the rounding of a float to a shorter float may be lost."""
    wanted = _dtype(spec.dtype)
    if array.dtype.kind in "fc" or array.dtype == wanted:  # bfloat16 and the like have no kind of their own
        _check_finite(array, place)
    if array.dtype == wanted:
        return array
    if not _castable(array, wanted):
        raise DataError(
            f"the data has type {array.dtype.name}, the model wants {spec.dtype}",
            where=place,
            hint=f"store the array as {spec.dtype}: array.astype('{spec.dtype}')",
        )
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    rounded = array.dtype.kind == "f" and wanted.kind != "i"
    same = (
        bool(np.isfinite(cast).all())
        if rounded
        else bool(((cast == array) & (cast.astype(array.dtype) == array)).all())
    )
    if not same:
        raise DataError(
            f"values of type {array.dtype.name} do not fit into {spec.dtype}, which the model wants",
            where=place,
            hint=f"store the array as {spec.dtype}, and scale it if needed",
        )
    note(f"input '{spec.name}': {array.dtype.name} read as {spec.dtype}")
    return cast


def _castable(array: Array, wanted: np.dtype[np.generic]) -> bool:
    """Float to float, integer to integer, integer to float; the values decide whether anything is lost."""
    have = array.dtype.kind
    if wanted.kind in "fV":
        return have in "fiu"
    return wanted.kind in "iu" and have in "iu"


def _dtype(name: str) -> np.dtype[np.generic]:
    try:
        dtype: np.dtype[np.generic] = np.dtype(name)
    except TypeError:
        import ml_dtypes  # bfloat16 and the like

        dtype = np.dtype(getattr(ml_dtypes, name))
    return dtype


def _check_finite(array: Array, place: str) -> None:
    finite = np.isfinite(array)
    if finite.all():
        return
    index = tuple(int(i) for i in np.argwhere(~finite)[0])
    kind = "NaN" if np.isnan(array[index]) else "infinity"
    raise DataError(
        f"the data holds {kind}, first at index {list(index)}",
        where=place,
        hint="remove the sample or repair its values: np.isfinite(array).all() must hold",
    )


def _shape(shape: Sequence[int | str]) -> str:
    return "[" + ", ".join(str(dim) for dim in shape) + "]"
