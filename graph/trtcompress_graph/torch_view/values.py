"""What flows while a view is built: tensors that are known, tensors that are not, and the integers of shapes.

A shape is an array of Python integers in which those that are only known at run time are traced as numbers. So
`Shape -> Gather -> Mul -> Concat -> Reshape` becomes `x.reshape(x.size(0) * 2, -1)`, with no tensor in between.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

READABLE = 1024
"""Constants of up to this many integers can take part in the arithmetic of shapes."""


class UnknownError(Exception):
    """A function asked while it was traced for what only a run can tell."""


class Traced(fx.Proxy):
    """A tensor or a number of which the value is known at run time only; rank and type may be known before."""

    rank: int | None = None
    kind: torch.dtype | None = None
    lengths: torch.Size | None = None

    def __getitem__(self, index: Any) -> Traced:
        made: Traced = self.tracer.create_proxy("call_function", operator.getitem, (self, index), {})  # type: ignore[assignment]
        return made

    def like(self, tensor: torch.Tensor) -> Traced:
        """Itself, now that it is known to look like a tensor."""
        self.rank, self.kind, self.lengths = tensor.dim(), tensor.dtype, tensor.shape
        return self

    def take_facts(self, other: Any) -> None:
        """Know of itself what is known of another, which holds the same."""
        self.rank, self.kind, self.lengths = other.rank, other.kind, other.lengths

    def dim(self) -> int:
        """Number of axes.

        Raises:
            UnknownError: it is not known.
        """
        rank: int = _known(self.rank)
        return rank

    @property
    def shape(self) -> torch.Size:
        """Lengths of the axes, which are known of parameters alone.

        Raises:
            UnknownError: they are not known.
        """
        lengths: torch.Size = _known(self.lengths)
        return lengths

    @property
    def dtype(self) -> torch.dtype:
        """Type of the elements.

        Raises:
            UnknownError: it is not known.
        """
        kind: torch.dtype = _known(self.kind)
        return kind

    def is_floating_point(self) -> bool:
        """Whether it holds real numbers."""
        return self.dtype.is_floating_point

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # numpy asks for these
        return super().__getattr__(name)


def _known(fact: Any) -> Any:
    if fact is None:
        raise UnknownError
    return fact


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """Numbers that shapes are made of: an object array of int, float, bool or `Traced`, and the type in ONNX."""

    array: NDArray[Any]
    dtype: torch.dtype = torch.int64

    @property
    def known(self) -> bool:
        """Whether none of it has to wait for a run."""
        return not any(isinstance(item, fx.Proxy) for item in self.array.flat)

    def tensor(self) -> torch.Tensor:
        """As a constant; only where it is known."""
        return torch.tensor(self.array.tolist(), dtype=self.dtype)

    def items(self) -> Any:
        """A number, or a tuple (of tuples) of them."""
        return _tuples(self.array.tolist()) if self.array.ndim else self.array[()]


def _tuples(held: Any) -> Any:
    return tuple(_tuples(item) for item in held) if isinstance(held, list) else held


def box(given: Any) -> NDArray[Any]:
    """A number, or a sequence of them, as an object array; numpy does not look into what is traced."""
    if isinstance(given, np.ndarray):
        return given.astype(object)
    if isinstance(given, (list, tuple)):
        array = np.empty(len(given), object)
        array[:] = given
        return array
    held = np.empty((), object)
    held[()] = given.item() if isinstance(given, np.generic) else given
    return held


def as_sizes(value: Any) -> Sizes | None:
    """What a value is as numbers; None for tensors that are not known, are large or hold no plain numbers."""
    if isinstance(value, Sizes):
        return value
    if not isinstance(value, torch.Tensor) or value.numel() > READABLE or value.dtype.is_complex:
        return None
    array = np.empty(tuple(value.shape), object)
    array[...] = np.array(value.tolist(), object)
    return Sizes(array, value.dtype)
