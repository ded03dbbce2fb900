"""The network to export: module, example inputs by name, and which of their axes are dynamic."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from trtcompress_graph.axes import Axes, AxisRange
from trtcompress_graph.callables import load_callable
from trtcompress_graph.errors import ExportError, UsageError

if TYPE_CHECKING:
    import torch

Sample = Mapping[str, NDArray[Any]]
"""Arrays by input name, with their batch axis."""

_FORM = "(module, example_inputs) or (module, example_inputs, dynamic_axes)"


@dataclass(frozen=True, slots=True)
class DynamicAxis:
    """A dynamic axis: its name, and its lengths where the config tells them."""

    name: str
    range: AxisRange | None


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What is exported.

    Attributes:
        source: as the config names it, for messages.
        module: in evaluation mode, on the CPU.
        inputs: example inputs by the parameter names of `forward`, in its order.
        positional: the inputs are passed by place (`forward(*tensors)` has no names).
        axes: dynamic axes of each input, by place.
    """

    source: str
    module: torch.nn.Module
    inputs: Mapping[str, torch.Tensor]
    positional: bool
    axes: Mapping[str, Mapping[int, DynamicAxis]]

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        """Run the module on inputs by name."""
        import torch

        with torch.no_grad():
            return self.module(*inputs.values()) if self.positional else self.module(**inputs)


def network_of_function(source: str, base: Path, axes: Axes) -> Network:
    """Call `package.module:function` and take its network.

    Raises:
        UsageError: no such function, or it does not return a module and example inputs.
        ExportError: it raised.
    """
    function = load_callable(source, base)
    try:
        made = function()
    except Exception as error:
        raise ExportError(
            f"the function raised {type(error).__name__}: {error}",
            where=source,
            hint="it is called without arguments; run it alone to see where it fails",
        ) from error
    if not isinstance(made, (tuple, list)) or len(made) not in (2, 3):
        raise UsageError(f"the function returned {type(made).__name__}", where=source, hint=f"return {_FORM}")
    return make_network(source, made[0], made[1], axes, made[2] if len(made) == 3 else None)


def make_network(
    source: str, module: object, examples: object, axes: Axes, dynamic_axes: Mapping[str, Any] | None = None
) -> Network:
    """Check and name the parts of a network.

    Raises:
        UsageError: not a module, not tensors, or an input or axis that does not exist.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise UsageError(
            f"the first value is {type(module).__name__}, not a torch.nn.Module", where=source, hint=f"return {_FORM}"
        )
    inputs, positional = _named_inputs(source, module, examples)
    declared = dynamic_axes or {}
    for name in (*axes, *declared):
        if name not in inputs:
            raise UsageError(
                f"the network has no input '{name}'", where=source, hint=f"its inputs are: {', '.join(inputs)}"
            )
    placed = {
        name: _place(source, name, tensor.dim(), axes.get(name, {}), declared.get(name, {}))
        for name, tensor in inputs.items()
    }
    return Network(source, module.eval().cpu(), inputs, positional, placed)


def _named_inputs(source: str, module: torch.nn.Module, examples: object) -> tuple[dict[str, torch.Tensor], bool]:
    """Example inputs by the names of `forward`'s parameters, and whether they go in by place."""
    import numpy as np
    import torch

    parameters = inspect.signature(module.forward).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    keywords = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if isinstance(examples, Mapping):
        order = [*(name for name in named if name in examples), *(name for name in examples if name not in named)]
        unknown = [name for name in examples if name not in named]
        if unknown and not keywords:
            raise UsageError(
                f"forward has no parameter '{unknown[0]}'", where=source, hint=f"it has: {', '.join(named)}"
            )
        given = {name: examples[name] for name in order}
        positional = False
    else:
        values = tuple(examples) if isinstance(examples, (tuple, list)) else (examples,)
        names = named[: len(values)]
        names += [f"{rest}_{i}" for i in range(len(values) - len(names))] if rest else []
        if len(names) < len(values):
            raise UsageError(
                f"{len(values)} example inputs for the {len(names)} parameters of forward",
                where=source,
                hint="return one tensor for each parameter, in order, or a dict by name",
            )
        given = dict(zip(names, values, strict=True))
        positional = rest is not None
    tensors = {n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in given.items() if v is not None}
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise UsageError(
                f"the example input '{name}' is {type(value).__name__}, not a tensor",
                where=source,
                hint="wrap the network in a module whose inputs are all tensors",
            )
    if not tensors:
        raise UsageError("there are no example inputs", where=source, hint=f"return {_FORM}")
    return {name: value.detach().cpu() for name, value in tensors.items()}, positional


def _place(
    source: str,
    name: str,
    rank: int,
    ranges: Mapping[str, AxisRange],
    declared: Mapping[int, str] | tuple[int, ...] | list[int],
) -> dict[int, DynamicAxis]:
    """Where the dynamic axes of an input stand.

    `dynamic_axes` of the function has the first word. In the config `height@2` tells the place and `2` is the place;
    `batch` is axis 0; another name stands at its own place in the mapping.
    """
    named = dict(declared) if isinstance(declared, Mapping) else {index: f"{name}_{index}" for index in declared}
    placed = {int(index) % rank: DynamicAxis(axis, ranges.get(axis)) for index, axis in named.items()}
    known = set(named.values())
    for position, (key, rng) in enumerate(ranges.items()):
        axis, at, place = key.partition("@")
        if key.isdigit():
            index, axis = int(key), f"{name}_{key}"
        elif at and place.isdigit():
            index = int(place)
        else:
            index = 0 if key == "batch" else position
        if axis in known:
            placed |= {i: DynamicAxis(axis, rng) for i, held in placed.items() if held.name == axis}
        elif index >= rank:
            raise UsageError(
                f"the input '{name}' has {rank} axes, so it has no axis {index} ('{key}')",
                where=source,
                hint=f"write the place of the axis with its name: model.inputs.{name}.{axis}@0",
            )
        else:
            placed.setdefault(index, DynamicAxis(axis, rng))
    return placed
