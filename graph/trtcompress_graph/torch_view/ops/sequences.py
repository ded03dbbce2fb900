"""Sequences of tensors: Python lists."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..numbers import only
from ..registry import op

Sequence = list[Tensor]


@op("SequenceEmpty", differentiable=False)
def sequence_empty(*, dtype: int = 1) -> Sequence:
    """No tensors."""
    return []


@op("SequenceConstruct")
def sequence_construct(*parts: Tensor) -> Sequence:
    """Tensors in their order."""
    return list(parts)


@op("SequenceInsert", ints=(2,))
def sequence_insert(parts: Sequence, tensor: Tensor, place: Any = None, /) -> Sequence:
    """One more tensor, at the end or before a place."""
    at = len(parts) if place is None else only(place)
    at = at + len(parts) if at < 0 else at
    return [*parts[:at], tensor, *parts[at:]]


@op("SequenceErase", ints=(1,))
def sequence_erase(parts: Sequence, place: Any = None, /) -> Sequence:
    """One tensor fewer: the last, or the one at a place."""
    at = -1 if place is None else only(place)
    return [part for index, part in enumerate(parts) if index != at % len(parts)]


@op("SequenceAt", ints=(1,))
def sequence_at(parts: Sequence, place: Any, /) -> Tensor:
    """The tensor at a place."""
    found: Tensor = parts[only(place)]
    return found


@op("SequenceLength", differentiable=False)
def sequence_length(parts: Sequence, /) -> Tensor:
    """How many there are."""
    return torch.tensor(len(parts))


@op("SplitToSequence", ints=(1,))
def split_to_sequence(x: Tensor, lengths: Any = None, /, *, axis: int = 0, keepdims: int = 1) -> Sequence:
    """Parts along an axis: of these lengths, of one length, or each element."""
    if lengths is None:
        parts = torch.split(x, 1, axis)
        return list(parts) if keepdims else [part.squeeze(axis) for part in parts]
    return list(torch.split(x, lengths if isinstance(lengths, int) else list(lengths), axis))


@op("ConcatFromSequence")
def concat_from_sequence(parts: Sequence, /, *, axis: int, new_axis: int = 0) -> Tensor:
    """All tensors one behind the other, along an axis of theirs or a new one."""
    return torch.stack(parts, axis) if new_axis else torch.cat(parts, axis)
