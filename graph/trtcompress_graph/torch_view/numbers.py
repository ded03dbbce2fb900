"""Between tensors and the Python numbers that shapes are made of, at run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def read_ints(tensor: Tensor) -> Any:
    """A tensor of numbers as one, or as a tuple (of tuples)."""
    return _tuples(tensor.tolist())


def _tuples(held: Any) -> Any:
    return tuple(_tuples(item) for item in held) if isinstance(held, list) else held


def sizes_tensor(numbers: Any, like: Any, dtype: torch.dtype) -> Tensor:
    """Numbers as a tensor, on the device of another."""
    return torch.tensor(numbers, dtype=dtype, device=getattr(like, "device", None))


def only(numbers: Any) -> Any:
    """The number itself, where ONNX wants one and takes a vector that holds one."""
    while isinstance(numbers, Sequence):
        numbers = numbers[0]
    return numbers
