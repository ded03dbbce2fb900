"""Running a data-movement operator on an array, as the ONNX specification defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .factors import Ints, Shape

if TYPE_CHECKING:
    import onnx_ir as ir

_SHAPED = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators whose output is the input in another shape."""


def replay(node: ir.Node, arrays: Sequence[Any], shapes: Sequence[Shape], fill: int) -> list[Ints]:
    """Outputs of a data movement, of known shapes; `fill` stands where nothing lands.

    Costs one copy of the array. Parameters that are computed are zeros in `arrays`: what they say about shapes is
    taken from `shapes`; a Slice by computed bounds takes the first elements, and a Gather the first.

    Where `collapses`, the array may have length 1 along axes that do not matter; the outputs have it there too.

    Raises:
        KeyError: the operator is not a data movement.
    """
    x = arrays[0]
    if node.op_type in _SHAPED:
        return [np.ascontiguousarray(x).reshape(shapes[0])]
    if node.op_type == "Expand":
        return [np.broadcast_to(x, shapes[0])]
    return _PLAIN[node.op_type](node, arrays, shapes, fill)


def collapses(node: ir.Node) -> bool:
    """Whether the operator treats each axis alone, so that those without labels can be left out."""
    return node.op_type in ("Gather", "Pad", "Slice", "Split", "Tile", "Transpose")


def _transpose(node: ir.Node, arrays: Sequence[Any], shapes: Sequence[Shape], fill: int) -> list[Ints]:
    return [arrays[0].transpose(node.attributes.get_ints("perm", None) or range(arrays[0].ndim)[::-1])]


def _split(node: ir.Node, arrays: Sequence[Any], shapes: Sequence[Shape], fill: int) -> list[Ints]:
    axis = node.attributes.get_int("axis", 0)
    if arrays[0].shape[axis] == 1:
        return [arrays[0]] * len(shapes)
    ends = np.cumsum([shape[axis] for shape in shapes])
    return np.split(arrays[0], ends[:-1], axis)


def _gather(node: ir.Node, arrays: Sequence[Any], shapes: Sequence[Shape], fill: int) -> list[Ints]:
    axis = node.attributes.get_int("axis", 0)
    picked = np.zeros_like(arrays[1]) if arrays[0].shape[axis] == 1 else arrays[1]
    return [np.take(arrays[0], picked, axis)]


def _tile(node: ir.Node, arrays: Sequence[Any], shapes: Sequence[Shape], fill: int) -> list[Ints]:
    x = arrays[0]
    return [np.tile(x, [1 if n == 1 else after // n for n, after in zip(x.shape, shapes[0], strict=True)])]


def _slice(node: ir.Node, arrays: Sequence[Any], shapes: Sequence[Shape], fill: int) -> list[Ints]:
    """Bounds that do not give the known shape were computed: any elements of that number stand for them."""
    x = arrays[0]
    wanted = tuple(1 if n == 1 else after for n, after in zip(x.shape, shapes[0], strict=True))
    cut = x[tuple(_bounds(x.shape, *slice_parameters(arrays, x.ndim)))]
    return [cut if cut.shape == wanted else x[tuple(slice(0, length) for length in wanted)]]


def slice_parameters(arrays: Sequence[Any], rank: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """Starts, ends, axes and steps of a Slice."""
    starts, ends = ([int(v) for v in arrays[i].reshape(-1)] for i in (1, 2))
    given = arrays[3] if len(arrays) > 3 else None
    axes = [int(v) % rank for v in given.reshape(-1)] if given is not None else list(range(len(starts)))
    given = arrays[4] if len(arrays) > 4 else None
    steps = [int(v) or 1 for v in given.reshape(-1)] if given is not None else [1] * len(starts)
    return starts, ends, axes, steps


def _bounds(shape: Shape, starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> list[slice]:
    bounds = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if shape[axis] == 1:
            continue
        if step < 0 and end < -shape[axis]:
            bounds[axis] = slice(start, None, step)
        else:
            bounds[axis] = slice(start, end, step)
    return bounds


def _pad(node: ir.Node, arrays: Sequence[Any], shapes: Sequence[Shape], fill: int) -> list[Ints]:
    """Constant padding fills; the other modes repeat what is there. Negative pads crop."""
    x = arrays[0]
    pads = []
    for n, after, (left, right) in zip(x.shape, shapes[0], pad_amounts(arrays, x.ndim), strict=True):
        fits = n + left + right == after
        pads.append((0, 0) if n == 1 else (left, right) if fits else (0, after - n))
    cropped = x[tuple(slice(max(0, -a), n - max(0, -b)) for n, (a, b) in zip(x.shape, pads, strict=True))]
    grow = [(max(0, a), max(0, b)) for a, b in pads]
    mode = node.attributes.get_string("mode", "constant")
    if mode == "constant":
        return [np.pad(cropped, grow, constant_values=fill)]
    return [np.pad(cropped, grow, mode=cast(Any, mode))]


def pad_amounts(arrays: Sequence[Any], rank: int) -> list[tuple[int, int]]:
    """Padding before and after, of every axis."""
    given = [int(v) for v in arrays[1].reshape(-1)]
    named = arrays[3] if len(arrays) > 3 else None
    axes = range(rank) if named is None else [int(v) % rank for v in named.reshape(-1)]
    pads = [(0, 0)] * rank
    for place, axis in enumerate(axes):
        pads[axis] = (given[place], given[place + len(given) // 2])
    return pads


def _depth_to_space(node: ir.Node, arrays: Sequence[Any], shapes: Sequence[Shape], fill: int) -> list[Ints]:
    n, c, h, w = arrays[0].shape
    b = node.attributes["blocksize"].as_int()
    if node.attributes.get_string("mode", "DCR") == "DCR":
        parts = arrays[0].reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = arrays[0].reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return [parts.reshape(shapes[0])]


def _space_to_depth(node: ir.Node, arrays: Sequence[Any], shapes: Sequence[Shape], fill: int) -> list[Ints]:
    n, c, h, w = arrays[0].shape
    b = node.attributes["blocksize"].as_int()
    return [arrays[0].reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(shapes[0])]


_PLAIN = {
    "DepthToSpace": _depth_to_space,
    "Gather": _gather,
    "Pad": _pad,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Tile": _tile,
    "Transpose": _transpose,
}

MOVED = frozenset({*_SHAPED, *_PLAIN, "Expand"})
"""The operators that `replay` knows."""
