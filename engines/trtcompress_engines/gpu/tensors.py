"""The tensors that go into an engine and come out of it: names, types, where they lie, and optimization profiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trtcompress_graph.errors import CompileError, EngineShapeError

Shapes = Mapping[str, tuple[int, ...]]

NUMPY = {"FLOAT": "f4", "HALF": "f2", "INT8": "i1", "INT32": "i4", "INT64": "i8", "BOOL": "?", "UINT8": "u1"}
"""numpy's type of each type of TensorRT that it has."""


class Tensors:
    """Of one engine, by name (TensorRT 8.5 and later, and TensorRT for RTX).

    Args:
        trt: the module.
        engine: an ICudaEngine.
        plan: its file, for messages.

    Raises:
        CompileError: a tensor is of a type that numpy lacks.
    """

    def __init__(self, trt: Any, engine: Any, plan: Path) -> None:
        self._engine, self._plan = engine, plan
        names = [str(engine.get_tensor_name(index)) for index in range(engine.num_io_tensors)]
        self.types = {name: self._type(name) for name in names}
        self.inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if name not in self.inputs]
        self.on_host = {name for name in names if engine.get_tensor_location(name) == trt.TensorLocation.HOST}

    def _type(self, name: str) -> np.dtype[Any]:
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in NUMPY:
            raise CompileError(f"tensor '{name}' is of type {kind}, which numpy lacks", where=str(self._plan))
        return np.dtype(NUMPY[kind])

    def profile(self, shapes: Shapes) -> int:
        """Index of the optimization profile whose usual shapes are nearest, of those that hold the shapes.

        Raises:
            EngineShapeError: none does.
        """
        away = {}
        for index in range(self._engine.num_optimization_profiles):
            held = [(self._range(name, index), shapes[name]) for name in self.inputs if name not in self.on_host]
            if all(_holds(least, shape, greatest) for (least, _, greatest), shape in held):
                away[index] = sum(
                    abs(a - b) for (_, usual, _), shape in held for a, b in zip(usual, shape, strict=True)
                )
        if not away:
            told = ", ".join(f"'{name}' {list(shape)}" for name, shape in shapes.items())
            raise EngineShapeError(
                f"the engine was not built for {told}: {self._greatest()}",
                where=str(self._plan),
                hint="ask for less, or build it anew with a wider range: --set 'model.inputs.INPUT.AXIS=[1, 8, 64]'",
            )
        return min(away, key=lambda index: away[index])

    def _greatest(self) -> str:
        """How far its profiles go, in words."""
        named = [name for name in self.inputs if name not in self.on_host]
        profiles = [
            ", ".join(
                f"'{name}' {list(low)} to {list(high)}" for name in named for low, _, high in [self._range(name, i)]
            )
            for i in range(self._engine.num_optimization_profiles)
        ]
        return f"it takes {' or '.join(profiles)}"

    def usual(self) -> dict[str, tuple[int, ...]]:
        """Shapes that the first profile is tuned for; only of an engine that reads no input on the host."""
        return {name: self._range(name, 0)[1] for name in self.inputs}

    def _range(self, name: str, profile: int) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, profile))


def _holds(least: tuple[int, ...], shape: tuple[int, ...], greatest: tuple[int, ...]) -> bool:
    return len(least) == len(shape) and all(a <= b <= c for a, b, c in zip(least, shape, greatest, strict=True))
