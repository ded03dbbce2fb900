"""Walks an ONNX graph and writes the calls of PyTorch that compute the same."""

from __future__ import annotations

import builtins
import re
from collections.abc import Sequence
from contextlib import nullcontext
from keyword import iskeyword
from typing import Any

import onnx_ir as ir
import torch
from torch import fx, nn
from torch.fx.proxy import TraceError

from ..errors import OperatorError, TrtCompressError
from .attributes import attributes, missing, place
from .batchnorm import restore
from .module import TorchView
from .numbers import read_ints, sizes_tensor
from .registry import STANDARD, Entry, find
from .state import State
from .tensors import known_type
from .tracer import Retracer, Tracer
from .values import Sizes, Traced, UnknownError, as_sizes, box


class Builder:
    """Builds the graph of one ONNX graph: of the model, or of one inside a node.

    Args:
        state: parameters and buffers of the view.
        opset: versions of the operator domains, for messages.
        outer: builds the graph around this one.
    """

    def __init__(self, state: State, opset: dict[str, int], outer: Builder | None = None) -> None:
        self.state, self.opset, self.outer = state, opset, outer
        self.graph, self.root = fx.Graph(tracer_cls=Retracer), nn.Module()
        self.tracer = Tracer(self.graph, self._held)
        self.captured: list[Any] = []
        self._values: dict[ir.Value, Any] = {}
        self._placeholders: dict[fx.Node, Traced] = {}

    # What values are

    def placeholder(self, value: ir.Value) -> Traced:
        """An input."""
        made = self.tracer.emit("placeholder", self._argument(str(value.name)))
        self.bind(value, made)
        return made

    def _argument(self, name: str) -> str:
        """The name of an argument, of letters, digits and `_` alone: torch.fx writes it into code."""
        plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "input"
        plain = f"_{plain}" if plain[0].isdigit() or iskeyword(plain) or hasattr(builtins, plain) else plain
        taken = {node.target for node in self.graph.nodes if node.op == "placeholder"}
        found, count = plain, 1
        while found in taken:
            found, count = f"{plain}_{count}", count + 1
        return found

    def bind(self, value: ir.Value, held: Any) -> None:
        """Say what a value is."""
        if isinstance(held, Traced):
            held.rank = held.rank if value.shape is None else len(value.shape)
            held.kind = held.kind or known_type(value.dtype)
            held.node.meta.setdefault("onnx", value.name)
            held.node.meta.setdefault("maker", _maker(value))
        self._values[value] = held

    def value(self, value: ir.Value) -> Any:
        """What a value is: traced, `Sizes` or a constant tensor."""
        if value in self._values:
            return self._values[value]
        if self.outer is None:
            held = self.state.initializer(value, self)
        else:
            held = self._from_outside(self.outer.value(value))
        self._values[value] = held
        return held

    def _from_outside(self, held: Any) -> Any:
        """What a graph inside a node reads from around it comes in as one more input."""
        if isinstance(held, Sizes):
            return Sizes(mapped(held.array, self._captured), held.dtype)
        return self._captured(held) if isinstance(held, Traced) else held

    def _captured(self, held: Any) -> Any:
        if not isinstance(held, fx.Proxy) or held.tracer is self.tracer:
            return held
        if held.node not in self._placeholders:
            with self._among_inputs():
                made = self.tracer.emit("placeholder", self._argument(held.node.name))
            made.take_facts(held)
            self._placeholders[held.node] = made
            self.captured.append(held)
        return self._placeholders[held.node]

    def attribute(self, name: str) -> Traced:
        """A parameter or buffer of the view."""
        if self.outer is not None:
            made: Traced = self._captured(self.outer.attribute(name))
            return made
        return self.tracer.emit("get_attr", name)

    def _held(self, tensor: torch.Tensor) -> fx.Node:
        """The node that reads a constant tensor."""
        return self.attribute(self.state.constant(tensor)).node

    def call_module(self, wanted: str, module: nn.Module, *args: Any) -> Traced:
        """Keep a module that holds no tensors, and call it."""
        if self.outer is None:
            name = self.state.module(f"parts.{wanted}", module)
        else:
            name = f"{wanted}_{len(list(self.root.children()))}"
            self.root.add_module(name, module)
        return self.tracer.emit("call_module", name, *args)

    def _among_inputs(self) -> Any:
        """Writes behind the inputs that are there."""
        first = next((node for node in self.graph.nodes if node.op != "placeholder"), None)
        return self.graph.inserting_before(first) if first is not None else nullcontext()

    def finish(self, graph: ir.Graph, *, always_tuple: bool = False) -> fx.GraphModule:
        """The module, of which the outputs are those of the graph."""
        results = tuple(self.tensor(self.value(value)) for value in graph.outputs)
        self.graph.output(self.tracer.create_arg(results if always_tuple or len(results) > 1 else results[0]))
        for node in reversed(self.graph.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)  # what only told ranks, or what no one reads
        return TorchView(self.root, self.graph)

    # Nodes

    def run(self, nodes: Sequence[ir.Node]) -> None:
        """Write every node.

        Raises:
            OperatorError: an operator is not registered, or not with these attributes.
        """
        for node in nodes:
            entry = find(node.domain, node.op_type)
            if entry is None:
                domain = "" if node.domain in STANDARD else node.domain
                raise missing(node, self.opset.get(domain))
            self.tracer.hint = str(node.outputs[0].name)
            results = entry.run(self, node) if entry.build else self._apply(entry, node)
            self._bind_all(node, restore(self, node, results))

    def _bind_all(self, node: ir.Node, results: Any) -> None:
        several = results if isinstance(results, tuple) else (results,)
        for value, held in zip(node.outputs, several, strict=False):
            if value.name:
                self.bind(value, held)

    def inputs(self, node: ir.Node) -> list[Any]:
        """What the inputs of a node are; None for those that are absent."""
        return [None if value is None or not value.name else self.value(value) for value in node.inputs]

    def _apply(self, entry: Entry, node: ir.Node) -> Any:
        given = self.inputs(node)
        named = attributes(node, entry)
        try:
            as_numbers = self._on_sizes(entry, node, given, named)
            if as_numbers is not None:
                return as_numbers
            if entry.outputs:
                named["outputs"] = output_count(node)
            args = self._arguments(entry, given)
            return self._result(entry, args, named, output_count(node))
        except TrtCompressError:
            raise
        except Exception as error:  # an operator on constants that do not fit each other
            raise OperatorError(f"cannot be computed: {error}", where=place(node), hint="check the model") from error

    def _on_sizes(self, entry: Entry, node: ir.Node, given: list[Any], named: dict[str, Any]) -> Sizes | None:
        """The result on Python numbers, where some input is a shape and all are few numbers."""
        if entry.sizes is None or not any(isinstance(held, Sizes) for held in given):
            return None
        parts = [None if held is None else as_sizes(held) for held in given]
        if any(part is None and held is not None for part, held in zip(parts, given, strict=True)):
            return None
        dtype = known_type(node.outputs[0].dtype) or next(part.dtype for part in parts if part is not None)
        found = entry.sizes(*[part and part.array for part in parts], dtype=dtype, **named)
        return None if found is None else Sizes(found, dtype)

    def _arguments(self, entry: Entry, given: list[Any]) -> list[Any]:
        """The arguments that the function of an operator takes."""
        args = [
            self.numbers(held) if index in entry.ints and held is not None else self.tensor(held)
            for index, held in enumerate(given)
        ]
        traced = [arg for arg in args if isinstance(arg, Traced) and arg.kind is not torch.bool]
        for index in entry.numbers | entry.scalars if traced else ():
            if index < len(args) and isinstance(args[index], torch.Tensor) and args[index].numel() == 1:
                least = max(arg.rank or 0 for arg in traced) if index in entry.numbers else 0
                if args[index].dim() <= least and not args[index].is_complex():
                    args[index] = args[index].item()
        return args

    def numbers(self, held: Any) -> Any:
        """A value as a number, or as a tuple of numbers."""
        sizes = as_sizes(held)
        return self.tracer.call(read_ints, held) if sizes is None else sizes.items()

    def tensor(self, held: Any) -> Any:
        """A value as a tensor."""
        if not isinstance(held, Sizes):
            return held
        if held.known:
            return held.tensor()
        made = self.tracer.call(sizes_tensor, held.items(), self.anchor(), held.dtype)
        made.rank, made.kind = held.array.ndim, held.dtype
        return made

    def anchor(self) -> Traced | None:
        """A tensor that tells the device: the first input."""
        if self.outer is not None:
            return self._captured(self.outer.anchor())  # type: ignore[no-any-return]
        first = next((node for node in self.graph.nodes if node.op == "placeholder"), None)
        return None if first is None else self.tracer.proxy(first)

    def _result(self, entry: Entry, args: list[Any], named: dict[str, Any], count: int) -> Any:
        """Compute with constants; else trace the function where it can be, or call it."""
        if not any(_is_traced(arg) for arg in args) and not entry.random:
            with torch.no_grad():
                return entry.run(*args, **named)
        args = [self._read(arg) if isinstance(arg, torch.Tensor) else arg for arg in args]
        if entry.inline:
            before = len(self.graph.nodes)
            try:
                return entry.run(*args, **named)
            except (UnknownError, TraceError, RuntimeError):
                self._drop_behind(before)
        called = self.tracer.call(entry.run, *args, **named)
        return tuple(called[i] for i in range(count)) if entry.outputs else called

    def _read(self, constant: torch.Tensor) -> Traced:
        """A constant, read from the module."""
        made = self.attribute(self.state.constant(constant))
        return made.like(constant)

    def _drop_behind(self, count: int) -> None:
        for node in list(self.graph.nodes)[count:][::-1]:
            self.graph.erase_node(node)


def output_count(node: ir.Node) -> int:
    """Up to which output a node is read."""
    return max(index + 1 for index, value in enumerate(node.outputs) if value.name)


def _maker(value: ir.Value) -> str:
    """The operator that computes a value, as seen through Q/DQ and casts; "" for an input."""
    node = value.producer()
    while node is not None and node.op_type in _PASSING:
        before = node.inputs[0]
        node = None if before is None else before.producer()
    return "" if node is None else node.op_type


_PASSING = frozenset(["QuantizeLinear", "DequantizeLinear", "Cast", "Identity"])


def _is_traced(arg: Any) -> bool:
    if isinstance(arg, (tuple, list)):
        return any(_is_traced(item) for item in arg)
    return isinstance(arg, fx.Proxy)


def mapped(array: Any, function: Any) -> Any:
    """A function applied to each number."""
    made = box(array)
    for index in range(made.size):
        made.flat[index] = function(made.flat[index])
    return made
