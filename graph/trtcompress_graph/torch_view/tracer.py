"""Writes calls into the graph of a view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from .values import Sizes, Traced

Held = Callable[[torch.Tensor], fx.Node]


class Retracer(fx.Tracer):
    """Traces a module again when it is loaded from a pickle: buffers are read from the module, as parameters are."""

    proxy_buffer_attributes = True


class Tracer(fx.proxy.GraphAppendingTracer):
    """Appends to a graph.

    Args:
        graph: to append to.
        held: gives the node that reads a constant tensor.
    """

    def __init__(self, graph: fx.Graph, held: Held) -> None:
        super().__init__(graph)
        self._held = held
        self.hint: str | None = None
        """What the next nodes are called."""

    def proxy(self, node: fx.Node) -> Traced:
        """The value of a node."""
        return Traced(node, self)

    def create_arg(self, a: Any) -> Any:
        """An argument as the graph holds it: constant tensors are read from the module."""
        if isinstance(a, torch.Tensor):
            return self._held(a)
        if isinstance(a, Sizes):
            return super().create_arg(a.items())
        return super().create_arg(a)

    def create_node(self, kind: str, target: Any, *rest: Any, **named: Any) -> fx.Node:
        """A node with the name of the tensor in ONNX, as far as Python allows."""
        if kind.startswith("call_") and len(rest) < 3 and named.get("name") is None:
            named["name"] = self.hint
        node = super().create_node(kind, target, *rest, **named)
        if kind == "call_function" and not _of_torch(target):
            node.meta["is_wrapped"] = True  # a pickled module is traced again when it is loaded, not into our functions
        return node

    def call(self, function: Any, *args: Any, **named: Any) -> Traced:
        """The call of a function."""
        return self.emit("call_function", function, *args, **named)

    def emit(self, kind: str, target: Any, *args: Any, **named: Any) -> Traced:
        """A node of any kind."""
        made = self.create_proxy(kind, target, args, named)
        assert isinstance(made, Traced)
        return made


def _of_torch(target: Any) -> bool:
    return getattr(target, "__module__", "") is None or str(getattr(target, "__module__", "")).startswith(
        ("torch", "_operator", "builtins", "math")
    )
