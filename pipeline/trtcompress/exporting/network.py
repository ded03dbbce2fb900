"""The network to export: module, example inputs by name, and which of their axes are dynamic."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from trtcompress_graph.axes import Axes
from trtcompress_graph.callables import load_callable
from trtcompress_graph.errors import ConfigError, DataError, ExportError, ModelError

from .places import DynamicAxis, described, place_axes

if TYPE_CHECKING:
    import torch

Sample = Mapping[str, NDArray[Any]]
"""Arrays by input name, with their batch axis."""

_FORM = "(module, example_inputs) or (module, example_inputs, dynamic_axes)"


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

    def answers(
        self, inputs: Mapping[str, torch.Tensor], told: str, blame: type[ExportError | DataError] = ExportError
    ) -> Any:
        """Run the module on a copy of the inputs, for it may write into them; `told` names them in messages.

        Raises:
            ExportError: the module fails on them; a DataError where they are the ones to blame.
        """
        try:
            return self({name: tensor.clone() for name, tensor in inputs.items()})
        except Exception as error:
            values = "lengths, or values such as indices, are not those that the network was made for"
            raise blame(
                f"the network fails on {told}: {first_line(error)}",
                where=self.source,
                hint=values if blame is DataError else self.axes_hint,
            ) from error

    @property
    def axes_hint(self) -> str:
        """What to do where the network does not work with its axes."""
        if not any(self.axes.values()):
            return "run module(*example_inputs) alone to see where it fails"
        name, index, axis = next((name, i, axed[i].name) for name, axed in self.axes.items() for i in sorted(axed))
        return (
            f"are these the axes that you mean: {'; '.join(described(self.axes))}? If not, give the place of an axis "
            f"with its name, such as model.inputs.{name}.{axis}@{index}; if so, narrow the range"
        )


def first_line(error: BaseException) -> str:
    """An error of PyTorch's in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}".removesuffix(": ")


def network_of_function(source: str, base: Path, axes: Axes) -> Network:
    """Call `package.module:function` and take its network.

    Raises:
        UsageError: no such function, or a key of the config that is no axis of an input.
        ModelError: it raised, or does not return a module and example inputs.
    """
    function = load_callable(source, base)
    try:
        made = function()
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"the function raised {type(error).__name__}: {error}",
            where=source,
            hint="it is called without arguments; run it alone to see where it fails",
        ) from error
    if not isinstance(made, (tuple, list)) or len(made) not in (2, 3):
        raise ModelError(f"the function returned {type(made).__name__}", where=source, hint=f"return {_FORM}")
    return make_network(source, made[0], made[1], axes, made[2] if len(made) == 3 else None)


def make_network(
    source: str, module: object, examples: object, axes: Axes, dynamic_axes: Mapping[str, Any] | None = None
) -> Network:
    """Check and name the parts of a network.

    Raises:
        ModelError: not a module, or not tensors.
        ConfigError: an input or axis that does not exist.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"the first value is {type(module).__name__}, not a torch.nn.Module", where=source, hint=f"return {_FORM}"
        )
    inputs, positional = _named_inputs(source, module, examples)
    declared = dynamic_axes or {}
    for name in (*axes, *declared):
        if name not in inputs:
            kind, where = (ConfigError, f"model.inputs.{name}") if name in axes else (ModelError, source)
            raise kind(f"the network has no input '{name}'", where=where, hint=f"its inputs are: {', '.join(inputs)}")
    placed = {
        name: place_axes(name, tensor.dim(), axes.get(name, {}), declared.get(name, {}))
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
            raise ModelError(
                f"forward has no parameter '{unknown[0]}'", where=source, hint=f"it has: {', '.join(named)}"
            )
        given = {name: examples[name] for name in order}
        positional = False
    else:
        values = tuple(examples) if isinstance(examples, (tuple, list)) else (examples,)
        names = named[: len(values)]
        names += [f"{rest}_{i}" for i in range(len(values) - len(names))] if rest else []
        if len(names) < len(values):
            raise ModelError(
                f"{len(values)} example inputs for the {len(names)} parameters of forward",
                where=source,
                hint="return one tensor for each parameter, in order, or a dict by name",
            )
        given = dict(zip(names, values, strict=True))
        positional = rest is not None
    tensors = {n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in given.items() if v is not None}
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"the example input '{name}' is {type(value).__name__}, not a tensor",
                where=source,
                hint="wrap the network in a module whose inputs are all tensors",
            )
    if not tensors:
        raise ModelError("there are no example inputs", where=source, hint=f"return {_FORM}")
    return {name: value.detach().cpu() for name, value in tensors.items()}, positional
