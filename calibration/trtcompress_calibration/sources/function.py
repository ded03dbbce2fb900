"""`package.module:function` that yields dicts of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from trtcompress_graph.callables import is_callable_name, load_callable
from trtcompress_graph.errors import DataError, TrtCompressError

from .base import Chunk, Chunks, Request, Source


def _open(request: Request) -> Chunks:
    function = load_callable(request.source, request.base)

    def chunks() -> Iterator[Chunk]:
        first = 0
        for item in _items(function(), request.source):
            chunk = Chunk(request.source, _arrays(item, f"{request.source}: item {first}"), first)
            yield chunk
            first += max((len(array) for array in chunk.arrays.values() if array.ndim), default=1)

    def guarded() -> Iterator[Chunk]:
        # The function is the user's own code: whatever it raises is told as what it is.
        try:
            yield from chunks()
        except (TrtCompressError, GeneratorExit):
            raise
        except (Exception, SystemExit) as error:
            raise DataError(
                f"the function failed: {type(error).__name__}: {error}",
                where=request.source,
                hint="it is called without arguments and yields dicts of arrays",
            ) from error

    return guarded


def _items(result: object, where: str) -> Iterable[object]:
    if isinstance(result, Mapping) or not isinstance(result, Iterable):
        raise DataError(
            f"the function gives {type(result).__name__}, not a sequence of dicts",
            where=where,
            hint="yield one dict of arrays a batch, named like the inputs of the model",
        )
    return result


def _arrays(item: object, where: str) -> dict[str, np.ndarray]:
    if not isinstance(item, Mapping):
        raise DataError(
            f"the function yields {type(item).__name__}, not dicts of arrays",
            where=where,
            hint="yield {'input name': array with a leading sample axis}; labels go under 'labels'",
        )
    arrays = {str(name): np.asarray(value) for name, value in item.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise DataError("this is not an array of numbers", where=f"{where}: '{name}'", hint="stack equal shapes")
    return arrays


SOURCE = Source(
    "a function package.module:function that yields dicts of arrays",
    lambda request: is_callable_name(request.source) and not request.path.exists(),
    _open,
)
