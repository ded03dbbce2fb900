"""Shapes as numbers, and tensors that are made from shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, fx

from ..attributes import value
from ..builder import Builder
from ..numbers import only
from ..registry import op
from ..sizes import filled, greatest, least
from ..tensors import known_type, torch_type
from ..values import Sizes, Traced, box


@op("Shape", build=True, differentiable=False)
def shape(builder: Builder, node: ir.Node) -> Any:
    """The lengths of the axes: numbers where the rank is known, else a tensor."""
    held = builder.inputs(node)[0]
    named = {key: attribute.value for key, attribute in node.attributes.items()}
    if isinstance(held, Traced) and held.rank is None:
        read = None if named else _lengths_read(node)
        if read is None:
            return builder.tracer.call(shape_tensor, held, **named)
        return Sizes(box([held.size(axis) for axis in range(read)]))
    lengths = _lengths(held)
    return Sizes(box(lengths[named.get("start", 0) : named.get("end")]))


def _lengths_read(node: ir.Node) -> int | None:
    """How many lengths are read at all, from the first; None where that depends on the rank or on a run."""
    shape = node.outputs[0]
    nodes = [use.node for use in shape.uses()]
    if any(user.graph is not node.graph for user in nodes):  # a branch that is not taken reads nothing
        return None
    if shape.is_graph_output() or any(user.op_type != "Gather" or user.inputs[0] is not shape for user in nodes):
        return None
    stored = [None if user.inputs[1] is None else user.inputs[1].const_value for user in nodes]
    places = [place for held in stored if held is not None for place in held.numpy().flat]
    known = all(held is not None for held in stored) and min(places, default=0) >= 0
    return int(max(places, default=-1)) + 1 if known else None


def _lengths(held: Any) -> list[Any]:
    if isinstance(held, Traced):
        return [held.size(axis) for axis in range(held.dim())]
    return list(held.array.shape if isinstance(held, Sizes) else held.shape)


def shape_tensor(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """The lengths of the axes."""
    return torch.tensor(x.shape[start:end], dtype=torch.int64, device=x.device)


@op("Size", build=True, differentiable=False)
def size(builder: Builder, node: ir.Node) -> Any:
    """The number of elements."""
    held = builder.inputs(node)[0]
    count = held.numel() if isinstance(held, (Tensor, Traced)) else held.array.size
    return Sizes(box(count))


@op("ConstantOfShape", build=True, differentiable=False)
def constant_of_shape(builder: Builder, node: ir.Node) -> Any:
    """A tensor filled with one value (0 without any)."""
    lengths = builder.inputs(node)[0]
    given = node.attributes.get("value")
    filler = torch.zeros(1) if given is None else value(given, node)
    if isinstance(lengths, Sizes):
        few = filled(lengths.array, dtype=filler.dtype, value=filler)
        if few is not None:
            return Sizes(few, filler.dtype)
    return made(builder, full, builder.numbers(lengths), filler.item(), filler.dtype)


def full(lengths: tuple[int, ...], filler: float, dtype: torch.dtype, like: Any = None) -> Tensor:
    """A tensor filled with one value, on the device of another."""
    return torch.full(lengths, filler, dtype=dtype, device=getattr(like, "device", None))


@op("Range", build=True, differentiable=False)
def value_range(builder: Builder, node: ir.Node) -> Any:
    """Numbers from a start up to a limit."""
    start, limit, step = (builder.numbers(held) for held in builder.inputs(node))
    kind = known_type(node.outputs[0].dtype) or torch.int64
    return made(builder, numbers_between, start, limit, step, kind)


def numbers_between(start: Any, limit: Any, step: Any, dtype: torch.dtype, like: Any = None) -> Tensor:
    """`torch.arange` on the device of another tensor; none where the steps lead away from the limit."""
    first, step = only(start), only(step)
    last = (greatest if step > 0 else least)(first, only(limit))
    return torch.arange(first, last, step, dtype=dtype, device=getattr(like, "device", None))


def made(builder: Builder, function: Callable[..., Tensor], *args: Any) -> Any:
    """Call a function that makes a tensor out of numbers: now if they are known, else beside the model's inputs."""
    if any(isinstance(item, fx.Proxy) for arg in args for item in (arg if isinstance(arg, tuple) else (arg,))):
        return builder.tracer.call(function, *args, builder.anchor())
    return function(*args)


@op("EyeLike", differentiable=False)
def eye_like(x: Tensor, /, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """Ones on a diagonal, in the shape of x."""
    kind = x.dtype if dtype is None else torch_type(ir.DataType(dtype), "EyeLike")
    rows, columns = (torch.arange(n, device=x.device) for n in x.shape)
    return (columns - rows[:, None] == k).to(kind)
