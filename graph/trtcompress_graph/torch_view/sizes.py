"""Arithmetic of shapes: operators on object arrays of Python integers, some of which are traced."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from .values import box

Array = NDArray[Any]


def elementwise(function: Callable[..., Any], count: int = 2) -> Callable[..., Array]:
    """A function of `count` numbers as one on arrays, with broadcasting."""
    applied = np.frompyfunc(function, count, 1)

    def on_arrays(*arrays: Array, dtype: torch.dtype) -> Array:
        return box(applied(*arrays))

    return on_arrays


def folded(function: Callable[[Any, Any], Any]) -> Callable[..., Array]:
    """A function of two numbers as one on any number of arrays."""
    applied = np.frompyfunc(function, 2, 1)

    def on_arrays(first: Array, *rest: Array, dtype: torch.dtype) -> Array:
        for array in rest:
            first = box(applied(first, array))
        return first

    return on_arrays


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of numbers, or write the call into the graph where a number is traced."""
    traced = next((arg for arg in args if isinstance(arg, fx.Proxy)), None)
    return function(*args) if traced is None else traced.tracer.create_proxy("call_function", function, args, {})


def divide(a: Array, b: Array, *, dtype: torch.dtype) -> Array:
    """Quotients; those of integers are rounded towards zero."""
    if dtype.is_floating_point:
        return box(np.frompyfunc(operator.truediv, 2, 1)(a, b))
    return box(np.frompyfunc(lambda x, y: call(truncated_quotient, x, y), 2, 1)(a, b))


def truncated_quotient(a: int, b: int) -> int:
    """The quotient of two integers, rounded towards zero."""
    return a // b if (a >= 0) == (b > 0) else -(-a // b)


def remainder(a: Array, b: Array, *, dtype: torch.dtype, fmod: int = 0) -> Array:
    """What is left of a division: with the sign of b, or of a where `fmod`."""
    if not fmod:
        return box(np.frompyfunc(operator.mod, 2, 1)(a, b))
    return box(np.frompyfunc(lambda x, y: x - y * call(truncated_quotient, x, y), 2, 1)(a, b))


def choose(condition: Array, a: Array, b: Array, *, dtype: torch.dtype) -> Array:
    """`Where`."""
    return box(np.frompyfunc(lambda c, x, y: call(chosen, c, x, y), 3, 1)(condition, a, b))


def chosen(condition: bool, a: Any, b: Any) -> Any:
    """One of two numbers."""
    return a if condition else b


def least(a: Any, b: Any) -> Any:
    """The smaller of two numbers."""
    return call(torch.sym_min, a, b)


def greatest(a: Any, b: Any) -> Any:
    """The larger of two numbers."""
    return call(torch.sym_max, a, b)


def cast(array: Array, *, dtype: torch.dtype, **_: Any) -> Array:
    """Numbers of another type; reals are cut off towards zero."""
    return box(np.frompyfunc(_CASTS[_family(dtype)], 1, 1)(array))


def _family(dtype: torch.dtype) -> type:
    return bool if dtype == torch.bool else float if dtype.is_floating_point else int


_CASTS: dict[type, Callable[[Any], Any]] = {
    int: lambda x: call(torch.sym_int, x),
    float: lambda x: call(torch.sym_float, x),
    bool: lambda x: call(operator.ne, x, 0),
}


def rounded(function: Callable[[float], int]) -> Callable[..., Array]:
    """`Floor` or `Ceil` of reals that stay reals."""
    return elementwise(lambda x: call(torch.sym_float, call(function, x)), 1)


floor, ceil = rounded(math.floor), rounded(math.ceil)


def gather(data: Array, indices: Array, *, dtype: torch.dtype, axis: int = 0) -> Array | None:
    """`Gather` with indices that are known."""
    if any(isinstance(i, fx.Proxy) for i in indices.flat):
        return None
    return box(np.take(data, np.asarray(indices.tolist(), np.int64), axis))


def concat(*arrays: Array, dtype: torch.dtype, axis: int) -> Array:
    """`Concat`."""
    return np.concatenate(arrays, axis)


def reshape(data: Array, shape: Array, *, dtype: torch.dtype, allowzero: int = 0) -> Array | None:
    """`Reshape` of few numbers to a shape that is known."""
    if any(isinstance(i, fx.Proxy) for i in shape.flat):
        return None
    wanted = [data.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(shape.tolist())]
    return data.reshape(wanted)


def squeeze(data: Array, axes: Array | None = None, *, dtype: torch.dtype) -> Array:
    """`Squeeze`."""
    return data.squeeze() if axes is None else data.squeeze(tuple(np.ravel(axes).tolist()))


def unsqueeze(data: Array, axes: Array, *, dtype: torch.dtype) -> Array:
    """`Unsqueeze`."""
    return np.expand_dims(data, tuple(np.ravel(axes).tolist()))


def slice_(
    data: Array,
    starts: Array,
    ends: Array,
    axes: Array | None = None,
    steps: Array | None = None,
    *,
    dtype: torch.dtype,
) -> Array | None:
    """`Slice` at places that are known."""
    given = [starts, ends, *(array for array in (axes, steps) if array is not None)]
    if any(isinstance(i, fx.Proxy) for array in given for i in array.flat):
        return None
    places = [slice(None)] * data.ndim
    count = len(starts)
    for start, end, axis, step in zip(
        starts, ends, range(count) if axes is None else axes, [1] * count if steps is None else steps, strict=True
    ):
        backwards_to_start = step < 0 and end < -data.shape[axis]
        places[axis] = slice(start, None if backwards_to_start else end, step)
    return data[tuple(places)]


def reduced(function: Callable[[Any, Any], Any], start: int | None) -> Callable[..., Array | None]:
    """A reduction over all of a vector."""

    def on_array(
        data: Array,
        axes: Array | None = None,
        *,
        dtype: torch.dtype,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Array | None:
        if data.ndim != 1 or (axes is None and noop_with_empty_axes) or not (data.size or start is not None):
            return None
        items = data.tolist() if start is None or data.size else [start]
        total = items[0]
        for item in items[1:]:
            total = function(total, item)
        return box([total] if keepdims else total)

    return on_array


def filled(shape: Array, *, dtype: torch.dtype, value: torch.Tensor | None = None) -> Array | None:
    """`ConstantOfShape` of a few numbers, as pads are made."""
    if any(isinstance(i, fx.Proxy) for i in shape.flat) or math.prod(shape.tolist()) > 64:
        return None
    return np.full(shape.tolist(), 0 if value is None else value.item(), object)
