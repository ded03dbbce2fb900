"""Tensors of ONNX as tensors of PyTorch, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ..errors import ModelError

_TYPES = {
    "FLOAT": torch.float32,
    "DOUBLE": torch.float64,
    "FLOAT16": torch.float16,
    "BFLOAT16": torch.bfloat16,
    "FLOAT8E4M3FN": torch.float8_e4m3fn,
    "FLOAT8E4M3FNUZ": torch.float8_e4m3fnuz,
    "FLOAT8E5M2": torch.float8_e5m2,
    "FLOAT8E5M2FNUZ": torch.float8_e5m2fnuz,
    "COMPLEX64": torch.complex64,
    "COMPLEX128": torch.complex128,
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    # PyTorch computes with no narrower integers: they keep their values in eight bits.
    "INT4": torch.int8,
    "UINT4": torch.uint8,
    "INT2": torch.int8,
    "UINT2": torch.uint8,
}

_SMALL_FLOATS = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)
_AS_BYTES: dict[torch.dtype, type[np.generic]] = {torch.bfloat16: np.int16, **dict.fromkeys(_SMALL_FLOATS, np.uint8)}
"""Types that numpy does not have, by one of the same width that it has."""


def torch_type(kind: ir.DataType, where: str = "") -> torch.dtype:
    """The type in PyTorch.

    Raises:
        ModelError: PyTorch has none.
    """
    if kind.name not in _TYPES:
        raise ModelError(
            f"PyTorch has no tensors of type {kind.name.lower()}",
            where=where,
            hint="cast to another type before export",
        )
    return _TYPES[kind.name]


def known_type(kind: ir.DataType | None) -> torch.dtype | None:
    """The type in PyTorch, None where there is none or it is not known."""
    return None if kind is None else _TYPES.get(kind.name)


def to_tensor(array: NDArray[Any], kind: ir.DataType, where: str = "") -> torch.Tensor:
    """A copy, of the same bits (integers of fewer than eight bits: of the same values)."""
    dtype = torch_type(kind, where)
    same_width = _AS_BYTES.get(dtype)
    if same_width is not None:
        return torch.from_numpy(np.array(array, order="C").view(same_width)).view(dtype)
    if kind.bitwidth < 8:
        return torch.from_numpy(np.array(array).astype(np.int8).astype(np.uint8 if not dtype.is_signed else np.int8))
    return torch.from_numpy(np.array(array, order="C"))


def to_array(tensor: torch.Tensor, kind: ir.DataType) -> NDArray[Any]:
    """The tensor as numpy's array of an ONNX type; floats are rounded to it."""
    held = tensor.detach().cpu().contiguous()
    if not (kind.bitwidth < 8):
        held = held.to(torch_type(kind))
    same_width = _AS_BYTES.get(held.dtype)
    array = held.numpy() if same_width is None else held.view(_VIEWS[same_width]).numpy()
    return array.view(kind.numpy()) if same_width is not None else array.astype(kind.numpy())


_VIEWS: dict[type[np.generic], torch.dtype] = {np.int16: torch.int16, np.uint8: torch.uint8}
