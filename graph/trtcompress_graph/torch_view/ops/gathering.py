"""Elements picked by index."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..registry import op
from ..sizes import gather as gather_sizes
from ..values import Traced, UnknownError
from .indices import positive


@op("Gather", inline=True, scalars=(1,), sizes=gather_sizes)
def gather(data: Tensor, indices: Any, /, *, axis: int = 0) -> Tensor:
    """Slices along an axis, as an embedding does it."""
    if isinstance(indices, int):
        return data.select(axis, indices)
    if isinstance(indices, Traced) or isinstance(data, Traced):
        raise UnknownError  # one call says more than its parts
    places = positive(indices, data.size(axis))
    if axis == 0 and data.dim() == 2 and data.is_floating_point():
        return functional.embedding(places, data)
    axis = axis % data.dim()
    found = data.index_select(axis, places.reshape(-1))
    return found.reshape(*data.shape[:axis], *places.shape, *data.shape[axis + 1 :])


@op("GatherElements")
def gather_elements(data: Tensor, indices: Tensor, /, *, axis: int = 0) -> Tensor:
    """For each index the element at that place of its line."""
    return torch.gather(data, axis, positive(indices, data.size(axis)))


@op("GatherND")
def gather_nd(data: Tensor, indices: Tensor, /, *, batch_dims: int = 0) -> Tensor:
    """Slices at places that are given by their first indices."""
    depth = indices.size(-1)
    places = [positive(indices[..., i], data.size(batch_dims + i)) for i in range(depth)]
    batch = [
        torch.arange(indices.size(b), device=data.device).reshape(
            [-1 if i == b else 1 for i in range(indices.dim() - 1)]
        )
        for b in range(batch_dims)
    ]
    return data[tuple(batch + places)] if batch or places else data


@op("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_features(data: Tensor, indices: Tensor, /) -> Tensor:
    """Elements of the last axis."""
    return data.index_select(-1, indices.reshape(-1))


@op("Compress", differentiable=False)
def compress(x: Tensor, condition: Tensor, /, *, axis: int | None = None) -> Tensor:
    """Slices along an axis (of the flat tensor without any) where the condition holds."""
    line = x.reshape(-1) if axis is None else x
    places = torch.nonzero(condition).reshape(-1)
    return line.index_select(axis or 0, places)
