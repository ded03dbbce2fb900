"""What an entry of the zoo is, and the registry that holds them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from trtcompress_graph.axes import Axes, AxisRange, input_shapes
from trtcompress_graph.model import Model

from .making import Module, write_exported, write_simplified

Shapes = dict[str, tuple[int, ...]]
Feeds = dict[str, NDArray[Any]]

BATCH = AxisRange(1, 2, 3)
WORDS = AxisRange(3, 7, 11)
"""Lengths of a batch and of a sequence; no layer of the zoo is that narrow."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One graph.

    Attributes:
        name: unique, the key of the registry.
        write: writes the simplified model (opset 20) to a path and describes it.
        home: the module that makes it.
        axes: the range of each dynamic axis, by input.
        below: integer inputs are drawn from 0 to this number, by input.
        fixed: the value that an input always has.
        drawn: makes the float inputs, where noise would not do.
        exported: from PyTorch.
    """

    name: str
    write: Callable[[Path], Model]
    home: str
    axes: Axes = field(default_factory=dict)
    below: Mapping[str, int] = field(default_factory=dict)
    fixed: Mapping[str, int] = field(default_factory=dict)
    drawn: Callable[[tuple[int, ...], np.random.Generator], NDArray[Any]] | None = None
    exported: bool = False

    def shapes(self, model: Model) -> tuple[Shapes, ...]:
        """Input shapes to run with: one binding, or two where axes are dynamic."""
        usual = input_shapes(model.inputs, self.axes, "opt")
        other = input_shapes(model.inputs, self.axes, "max")
        return (usual,) if usual == other else (usual, other)

    def feeds(self, model: Model, shapes: Shapes, seed: int = 0) -> Feeds:
        """Seeded inputs: floats of variance 1, integers below their limit, masks that hide the last place."""
        rng = np.random.default_rng(seed)
        return {spec.name: self._drawn(spec.name, spec.dtype, shapes[spec.name], rng) for spec in model.inputs}

    def _drawn(self, name: str, dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        if name in self.fixed:
            return np.full(shape, self.fixed[name], dtype)
        if name in self.below:
            return rng.integers(0, self.below[name], shape).astype(dtype)
        if dtype == "bool":
            return rng.random(shape) < 0.5
        if "mask" in name:
            mask = np.ones(shape, dtype)
            mask[-1, ..., -1] = 0
            return mask
        if self.drawn is not None:
            return self.drawn(shape, rng).astype(dtype)
        return rng.standard_normal(shape).astype(dtype)


REGISTRY: dict[str, Entry] = {}


def torch_graph(
    *, axes: Axes | None = None, below: Mapping[str, int] | None = None, trained: bool = False
) -> Callable[[Module], Module]:
    """Register a network under its function's name: seeded weights unless trained, our export and simplification."""

    def register(build: Module) -> Module:
        name = build.__name__
        given = axes or {}

        def write(path: Path) -> Model:
            return write_exported(name, build, given, trained, path)

        add(Entry(name, write, build.__module__, given, below or {}, exported=True))
        return build

    return register


def onnx_graph(
    *, axes: Axes | None = None, below: Mapping[str, int] | None = None
) -> Callable[[Callable[[], onnx.ModelProto]], Callable[[], onnx.ModelProto]]:
    """Register an ONNX model under its function's name; it goes through our simplification."""

    def register(build: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
        def write(path: Path) -> Model:
            return write_simplified(build(), path)

        add(Entry(build.__name__, write, build.__module__, axes or {}, below or {}))
        return build

    return register


def add(entry: Entry) -> None:
    assert entry.name not in REGISTRY, f"two graphs are called {entry.name}"
    REGISTRY[entry.name] = entry
