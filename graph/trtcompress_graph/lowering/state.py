"""What is known of a graph while it is brought down, and how nodes are written in a node's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Nodes = list[onnx.NodeProto] | None
Rule = Callable[[onnx.NodeProto, "Lowering"], Nodes]


@dataclass(slots=True)
class Lowering:
    """What rules know of the graph, and what they add to it.

    Attributes:
        version: opset that the graph is in.
        opset: that it is brought to.
        without: operators that are not to be used.
        types: of tensors, as in schemas: `tensor(float)`; those that are known.
        held: constants by their names.
        constants: that were added.
    """

    proto: onnx.ModelProto
    version: int
    opset: int
    without: frozenset[str]
    types: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    held: dict[str, onnx.TensorProto] = field(default_factory=dict)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._read(self.proto.graph)

    def _read(self, graph: onnx.GraphProto) -> None:
        for value in (*graph.input, *graph.output, *graph.value_info):
            tensor = value.type.tensor_type
            if tensor.elem_type:
                self.types[value.name] = _type(tensor.elem_type)
            if tensor.HasField("shape"):
                self.ranks[value.name] = len(tensor.shape.dim)
        for initializer in graph.initializer:
            self._hold(initializer.name, initializer)
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._hold(node.output[0], node.attribute[0].t)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    self._read(attribute.g)

    def _hold(self, name: str, tensor: onnx.TensorProto) -> None:
        self.held[name] = tensor
        self.types[name] = _type(tensor.data_type)
        self.ranks[name] = len(tensor.dims)

    def value(self, name: str) -> Any | None:
        """A constant's value; None where the tensor is none."""
        return numpy_helper.to_array(self.held[name]) if name in self.held else None

    def constant(self, value: Any, wanted: str) -> str:
        """Name of a new constant."""
        tensor = numpy_helper.from_array(np.asarray(value), wanted)
        while tensor.name in self.types:
            tensor.name += "_"
        self._hold(tensor.name, tensor)
        self.constants.append(tensor)
        return tensor.name

    def lengths(self, name: str) -> list[int | None]:
        """Lengths of a tensor's axes, None where one is dynamic; empty where none is known."""
        for value in (*self.proto.graph.value_info, *self.proto.graph.input, *self.proto.graph.output):
            if value.name == name:
                dims = value.type.tensor_type.shape.dim
                return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
        return []

    def like(self, name: str) -> Any | None:
        """Numpy's type of a float tensor; None where it is not known, or is none of numpy's."""
        return {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}.get(
            self.types.get(name, "")
        )


class Chain:
    """Nodes in a node's place, one after the other."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self._node = node
        self.nodes: list[onnx.NodeProto] = []

    def add(self, op_type: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """A node; its output gets a name of its own unless `out` gives one."""
        count = len(self.nodes)
        name = out or f"{self._node.output[0]}.{op_type.lower()}{count}"
        label = self._node.name if out else f"{self._node.name}.{op_type.lower()}{count}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=label, **attributes))
        return name

    def last(self, op_type: str, *inputs: str, **attributes: Any) -> list[onnx.NodeProto]:
        """The node that gives the old node's output."""
        self.add(op_type, *inputs, out=self._node.output[0], **attributes)
        return self.nodes


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Value of an attribute."""
    held = next((one for one in node.attribute if one.name == name), None)
    return default if held is None else helper.get_attribute_value(held)


def _type(kind: int) -> str:
    return f"tensor({TensorProto.DataType.Name(kind).lower()})"
