"""Control flow at run time. What the inner graphs read from around them comes in as operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._higher_order_ops.cond import cond_op


class Branch(nn.Module):
    """One graph or another.

    Args:
        then, otherwise: the graphs, which return tuples.
        of_then, of_otherwise: places of their operands among those of both.
    """

    def __init__(
        self, then: fx.GraphModule, otherwise: fx.GraphModule, of_then: tuple[int, ...], of_otherwise: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.then, self.otherwise = then, otherwise
        self.of_then, self.of_otherwise = of_then, of_otherwise

    def forward(self, condition: Any, *operands: Any) -> Any:
        """The outputs of the graph that is taken."""

        def take_then(*given: Any) -> Any:
            return self.then(*(given[place] for place in self.of_then))

        def take_otherwise(*given: Any) -> Any:
            return self.otherwise(*(given[place] for place in self.of_otherwise))

        if torch.compiler.is_exporting() and isinstance(condition, Tensor):
            branches = (_own(take_then), _own(take_otherwise))
            # torch.cond compiles its branches with lengths of weights as symbols, of which it cannot tell the strides
            cond = torch.cond if torch.compiler.is_dynamo_compiling() else cond_op
            return cond(condition.reshape(()), *branches, operands)
        return take_then(*operands) if condition else take_otherwise(*operands)


def _own(take: Callable[..., Any]) -> Callable[..., Any]:
    """The function with outputs that share no memory with its inputs or each other, which `torch.cond` refuses."""

    def take_copies(*given: Any) -> Any:
        return tuple(made.clone() for made in take(*given))

    return take_copies


class Loop(nn.Module):
    """A graph again and again.

    Args:
        body: from the count, the condition, what is carried and operands to the condition, what is carried and what is
            collected.
        carried: how many are carried.
        collected: shape and type of what is collected each time, for no times at all; unknown lengths are 0.
    """

    def __init__(
        self, body: fx.GraphModule, carried: int, collected: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    ) -> None:
        super().__init__()
        self.body, self.carried, self.collected = body, carried, collected

    def forward(self, most: int | None, condition: Any, *args: Any) -> tuple[Any, ...]:
        """What was carried last, and what was collected, stacked."""
        states, operands = args[: self.carried], args[self.carried :]
        device = next((arg.device for arg in args if isinstance(arg, Tensor)), None)
        collected: list[tuple[Tensor, ...]] = []
        count = 0
        going: Any = torch.tensor(True, device=device) if condition is None else condition
        while (most is None or count < most) and going:
            index = torch.tensor(count, device=device)
            going, *rest = self.body(index, going, *states, *operands)
            states, made = tuple(rest[: self.carried]), tuple(rest[self.carried :])
            collected.append(made)
            count += 1
        if not collected:
            return *states, *(torch.empty(0, *shape, dtype=kind, device=device) for shape, kind in self.collected)
        return *states, *(torch.stack(parts) for parts in zip(*collected, strict=True))


class Scan(nn.Module):
    """A graph for each slice of its inputs.

    Args:
        body: from what is carried, a slice of each input and operands to what is carried and a slice of each output.
        carried: how many are carried.
        inputs: axis and direction (1: backwards) of each input.
        outputs: the same of each output.
    """

    def __init__(
        self,
        body: fx.GraphModule,
        carried: int,
        inputs: tuple[tuple[int, int], ...],
        outputs: tuple[tuple[int, int], ...],
    ) -> None:
        super().__init__()
        self.body, self.carried, self.inputs, self.outputs = body, carried, inputs, outputs

    def forward(self, *args: Any) -> tuple[Any, ...]:
        """What was carried last, and the slices of the outputs, stacked."""
        states, rest = args[: self.carried], args[self.carried :]
        scanned, operands = rest[: len(self.inputs)], rest[len(self.inputs) :]
        lines = [
            part.unbind(axis)[::-1] if back else part.unbind(axis)
            for part, (axis, back) in zip(scanned, self.inputs, strict=True)
        ]
        collected: list[tuple[Tensor, ...]] = []
        for slices in zip(*lines, strict=True):
            made = self.body(*states, *slices, *operands)
            states = tuple(made[: self.carried])
            collected.append(tuple(made[self.carried :]))
        stacked = [
            torch.stack(parts[::-1] if back else parts, axis)
            for parts, (axis, back) in zip(zip(*collected, strict=True), self.outputs, strict=True)
        ]
        return *states, *stacked
