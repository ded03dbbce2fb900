"""Parameters and buffers of a view, and where each came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch import nn

from ..errors import ModelError
from .names import StateNames
from .roles import Role
from .tensors import to_tensor

if TYPE_CHECKING:
    from .builder import Builder


@dataclass(frozen=True, slots=True)
class Options:
    """How a view is made; see `to_torch`."""

    learn_scales: bool = False
    restore_batchnorm: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers behind a weight that is quantized: `integer = round(weight / scale) + zero_point`.

    Attributes:
        scale: name of its scale in the file.
        zero_point: name of its zero point in the file, or "".
        axis: of one scale a channel, or of blocks.
        block: how many neighbours along `axis` share a scale; 0 where the whole channel does.
        bits: that are used of each integer; fewer than its type has where its range is reduced.
    """

    scale: str
    zero_point: str
    axis: int
    block: int
    bits: int


@dataclass(frozen=True, slots=True)
class Restored:
    """A BatchNorm that was put behind a convolution.

    Attributes:
        weight, bias: names of the convolution's in the file.
        prefix: where the norm is in the view.
    """

    weight: str
    bias: str
    prefix: str


class State:
    """What a view holds.

    Args:
        roles: of each stored tensor.
        trainable: names of those that can be written back.
        options: how the view is made.
        twins: scales that follow another, where they are learned; see `tied_scales`.
        products: scales of biases, which follow two others; see `bias_scales`.
    """

    def __init__(
        self,
        roles: Mapping[str, Role],
        trainable: frozenset[str],
        options: Options,
        twins: Mapping[str, str],
        products: Mapping[str, tuple[ir.Value, ir.Value]],
    ) -> None:
        self.trainable = trainable
        self.root = nn.Module()
        self.options = options
        self.names = StateNames(roles)
        self.grids: dict[str, Grid] = {}
        self.scales: list[str] = []
        learned = {name for name, role in roles.items() if role is Role.SCALE}
        self.twins = {name: first for name, first in twins.items() if {name, first} <= learned}
        self.products = {
            name: two
            for name, two in products.items()
            if name in trainable and {str(value.name) for value in two} <= learned
        }
        self.restored: list[Restored] = []
        self.roles = dict(roles)
        self._constants: dict[str, torch.Tensor] = {}
        self._named: dict[int, tuple[str, torch.Tensor]] = {}
        self._registered: dict[str, str] = {}

    def initializer(self, value: ir.Value, builder: Builder) -> Any:
        """A stored tensor: read from the module where it is a weight or state, else itself."""
        name = str(value.name)
        role = self.roles.get(name)
        if role is None or value.const_value is None:
            raise ModelError("it is read, but nothing makes it", where=f"tensor '{name}'", hint="export it again")
        if role is Role.CONSTANT:
            return self.stored(value)
        if role is Role.SCALE and self.options.learn_scales:
            name = self._scale(name, value)
        if name not in self._registered:
            self.register(name, self.stored(value), trained=role is Role.WEIGHT)
        made = builder.attribute(self._registered[name])
        return made.like(self.stored(value))

    def _scale(self, name: str, value: ir.Value) -> str:
        """Register a scale that is learned; one that is tied to another is that one."""
        first = self.twins.get(name, name)
        if first not in self._registered:
            self.scales.append(self.register(first, self.stored(value), trained=True))
        return first

    def stored(self, value: ir.Value) -> torch.Tensor:
        """What is stored under a name, one tensor for all who ask."""
        name = str(value.name)
        if name not in self._constants:
            held = value.const_value
            assert held is not None
            tensor = to_tensor(held.numpy(), held.dtype, f"initializer '{name}'")
            self._constants[name] = tensor
            self._named[id(tensor)] = (name, tensor)
        return self._constants[name]

    def register(self, name: str, tensor: torch.Tensor, *, trained: bool) -> str:
        """Keep a tensor under the name of an initializer; its name in the view.

        What cannot be found again in the file by this name is not in the state dict.
        """
        if name not in self._registered:
            state_name = self.names.of(name)
            self._put(state_name, nn.Parameter(tensor) if trained else tensor, persistent=name in self.trainable)
            self._registered[name] = state_name
        return self._registered[name]

    def constant(self, tensor: torch.Tensor) -> str:
        """Keep a constant as a buffer; its name in the view. What the file does not hold is not in the state dict."""
        known = self._named.get(id(tensor))
        if known is not None:
            return self.register(known[0], tensor, trained=False) if known[0] in self.roles else known[0]
        name = self.names.fresh(f"constants.{len(self._named)}")
        self._named[id(tensor)] = (name, tensor)
        self._put(name, tensor, persistent=False)
        return name

    def module(self, wanted: str, module: nn.Module) -> str:
        """Keep a module; its name in the view."""
        name = self.names.fresh(wanted)
        folder, leaf = self._folder(name)
        folder.add_module(leaf, module)
        return name

    def _put(self, name: str, tensor: torch.Tensor, *, persistent: bool) -> None:
        folder, leaf = self._folder(name)
        if isinstance(tensor, nn.Parameter):
            folder.register_parameter(leaf, tensor)
        else:
            folder.register_buffer(leaf, tensor, persistent=persistent)

    def _folder(self, name: str) -> tuple[nn.Module, str]:
        """The module that holds a name, made where it is not there, and the last part of the name."""
        *parts, leaf = name.split(".")
        folder = self.root
        for part in parts:
            if part not in folder._modules:
                folder.add_module(part, nn.Module())
            folder = folder.get_submodule(part)
        return folder, leaf
