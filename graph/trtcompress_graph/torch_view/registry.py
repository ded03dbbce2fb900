"""The registry of operators: one entry an operator, which holds all that is known of it.

An operator is a function on PyTorch tensors. What ONNX passes as inputs it takes by position (None where absent), what
ONNX calls attributes it takes by keyword, under ONNX's names and with ONNX's defaults:

    @op("ThresholdedRelu")
    def thresholded_relu(x: Tensor, /, *, alpha: float = 1.0) -> Tensor:
        return torch.where(x > alpha, x, 0)

A function with several outputs also takes `outputs`, how many the node has, and returns a tuple of at least as many.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..custom_ops import CUSTOM

Function = TypeVar("Function", bound=Callable[..., Any])

STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of an operator.

    Attributes:
        name: the operator.
        domain: "" is ONNX's own.
        run: gives the outputs from the inputs.
        inline: `run` is traced: the graph gets the PyTorch calls that it makes. Otherwise the graph calls `run`.
        build: `run` gets the builder and the node instead of tensors, and emits what it wants.
        ints: places of inputs that are read as integers (a number, or a tuple): shapes, axes, pads.
        numbers: places of inputs that are Python numbers where they are constant and hold one element.
        scalars: the same, where they have no axis either: their axes would be those of the output.
        weights: places of inputs that are weights even if they hold one element.
        buffers: places of floats that are state and never trained.
        sizes: the operator on arrays of Python integers, as shapes are computed with; None where it has none.
        differentiable: gradients flow from the outputs to the float inputs.
        random: the outputs are no constants even where the inputs are.
        attributes: names that `run` takes by keyword; None takes any.
        outputs: `run` takes the number of outputs, and returns a tuple.
    """

    name: str
    domain: str
    run: Callable[..., Any]
    inline: bool
    build: bool
    ints: frozenset[int]
    numbers: frozenset[int]
    scalars: frozenset[int]
    weights: frozenset[int]
    buffers: frozenset[int]
    sizes: Callable[..., Any] | None
    differentiable: bool
    random: bool
    attributes: frozenset[str] | None
    outputs: bool


OPS: dict[tuple[str, str], Entry] = {}
"""Every operator of the view, by domain and name."""


def op(
    names: str,
    *,
    domain: str = "",
    inline: bool = False,
    build: bool = False,
    ints: tuple[int, ...] = (),
    numbers: tuple[int, ...] = (),
    scalars: tuple[int, ...] = (),
    weights: tuple[int, ...] = (),
    buffers: tuple[int, ...] = (),
    sizes: Callable[..., Any] | None = None,
    differentiable: bool = True,
    random: bool = False,
) -> Callable[[Function], Function]:
    """Register operators, named with spaces between; see `Entry` for what can be said of them.

    Raises:
        ValueError: one is registered already.
    """

    def keep(function: Function) -> Function:
        taken, outputs = _keywords(function)
        for name in names.split():
            if (domain, name) in OPS:
                raise ValueError(f"{name} of the domain '{domain or 'ai.onnx'}' is registered already")
            OPS[domain, name] = Entry(
                name=name,
                domain=domain,
                run=function,
                inline=inline,
                build=build,
                ints=frozenset(ints),
                numbers=frozenset(numbers),
                scalars=frozenset(scalars),
                weights=frozenset(weights),
                buffers=frozenset(buffers),
                sizes=sizes,
                differentiable=differentiable,
                random=random,
                attributes=taken,
                outputs=outputs,
            )
            if domain not in STANDARD:
                CUSTOM.add((domain, name))
        return function

    return keep


def find(domain: str, name: str) -> Entry | None:
    """The entry of an operator, or None."""
    return OPS.get(("" if domain in STANDARD else domain, name))


def _keywords(function: Callable[..., Any]) -> tuple[frozenset[str] | None, bool]:
    """The attributes that a function takes (None: any, or unknown), and whether it takes the number of outputs."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):  # functions of PyTorch that are written in C
        return frozenset(), False
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None, False
    names = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    return frozenset(names - {"outputs"}), "outputs" in names
