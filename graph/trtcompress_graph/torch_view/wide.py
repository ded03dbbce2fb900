"""Arithmetic on unsigned integers that PyTorch stores but does not compute with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .values import Traced, UnknownError

Function = TypeVar("Function", bound=Callable[..., Any])

_NARROW = (torch.uint16, torch.uint32, torch.uint64)


def wide(function: Function) -> Function:
    """Have a function compute with 64 bits where it gets such integers; results of 64 bits become narrow again."""

    @functools.wraps(function)
    def run(*args: Any, **named: Any) -> Any:
        if any(isinstance(arg, Traced) and arg.dtype in _NARROW for arg in args):
            raise UnknownError  # the graph calls the function as a whole
        kind = next((arg.dtype for arg in args if isinstance(arg, Tensor) and arg.dtype in _NARROW), None)
        if kind is None:
            return function(*args, **named)
        result = function(*[_widened(arg) for arg in args], **named)
        return result.to(kind) if isinstance(result, Tensor) and result.dtype == torch.int64 else result

    return cast(Function, run)


def _widened(arg: Any) -> Any:
    return arg.to(torch.int64) if isinstance(arg, Tensor) and arg.dtype in _NARROW else arg
