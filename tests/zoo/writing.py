"""Nodes of the masked reference, written one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Mask = NDArray[np.bool_]


class Writer:
    """Collects nodes and constants; `dtype` is the float type of what is being written."""

    def __init__(self, integers: Mapping[str, NDArray[np.int64]]) -> None:
        self.integers = integers
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def number(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, self.dtype))

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}/{op}", **attributes))
        return output

    def where(self, alive: Mask, name: str, otherwise: float, output: str) -> str:
        """The tensor where it is alive, a number elsewhere: also where it is not a number."""
        fill = self.number(f"{output}/fill", otherwise)
        return self.node("Where", [self.constant(f"{output}/alive", alive), name, fill], output)

    def mean(self, name: str, alive: Mask, axes: Sequence[int], output: str, keepdims: bool = True) -> str:
        """Mean along axes of what is alive; what is dead is zero already."""
        places = self.constant(f"{output}/axes", np.array(axes, np.int64))
        whole = self.node("ReduceMean", [name, places], f"{output}/mean", keepdims=int(keepdims))
        share = np.asarray(alive.mean(axis=tuple(axes), keepdims=keepdims))
        ratio = np.divide(1, share, where=share > 0, out=np.ones_like(share)).astype(self.dtype)
        return self.node("Mul", [whole, self.constant(f"{output}/ratio", ratio)], output)

    def normalized(
        self, name: str, alive: Mask, axes: Sequence[int], epsilon: float, output: str, centred: bool = True
    ) -> str:
        """Zero mean (if centred) and unit variance along axes, of what is alive."""
        if centred:
            centre = self.mean(name, alive, axes, f"{output}/centre")
            apart = self.node("Sub", [name, centre], f"{output}/apart")
            name = self.where(alive, apart, 0.0, f"{output}/centred")
        square = self.node("Mul", [name, name], f"{output}/square")
        variance = self.mean(square, alive, axes, f"{output}/variance")
        more = self.node("Add", [variance, self.number(f"{output}/epsilon", epsilon)], f"{output}/more")
        return self.node("Div", [name, self.node("Sqrt", [more], f"{output}/spread")], output)

    def scaled(self, name: str, scale: str, bias: str | None, output: str) -> str:
        if not bias:
            return self.node("Mul", [name, scale], output)
        return self.node("Add", [self.node("Mul", [name, scale], f"{output}/scaled"), bias], output)
