"""How operators are written by older ones. A rule gives the nodes in a node's place, or None where it knows none.

The last node of a rule gives the outputs of the old one under their names. Decompositions are those of the operators'
definitions in ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
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


def _rebuilt(node: onnx.NodeProto, inputs: list[str], drop: tuple[str, ...] = (), **more: Any) -> list[onnx.NodeProto]:
    """The node with other inputs and attributes."""
    made = helper.make_node(node.op_type, inputs, list(node.output), name=node.name, **more)
    made.attribute.extend(one for one in node.attribute if one.name not in (*drop, *more))
    return [made]


def _reduce(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """Before opset 18 the axes are an attribute."""
    if len(node.input) < 2 or not node.input[1]:
        return None
    axes = found.value(node.input[1])
    if axes is None:
        return None
    given = [int(axis) for axis in axes.ravel()]
    if not given:
        if attribute(node, "noop_with_empty_axes", 0):
            return [helper.make_node("Identity", [node.input[0]], list(node.output), name=node.name)]
        return _rebuilt(node, [node.input[0]], ("noop_with_empty_axes",))
    return _rebuilt(node, [node.input[0]], ("noop_with_empty_axes",), axes=given)


def _split(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """`num_outputs` goes: equal parts need no sizes; parts that are not equal need their axis's length."""
    axis = attribute(node, "axis", 0)
    lengths = _lengths(node.input[0], found)
    length = lengths[axis] if lengths else None
    count = len(node.output)
    if length is None:
        return None
    if length % count == 0:
        return _rebuilt(node, [node.input[0]], ("num_outputs",))
    part = -(-length // count)
    sizes = [part] * (count - 1) + [length - part * (count - 1)]
    named = found.constant(np.array(sizes, np.int64), f"{node.output[0]}.sizes")
    return _rebuilt(node, [node.input[0], named], ("num_outputs",))


def _lengths(name: str, found: Lowering) -> list[int | None]:
    """Lengths of a tensor's axes, None where one is dynamic; empty where none is known."""
    for value in (*found.proto.graph.value_info, *found.proto.graph.input, *found.proto.graph.output):
        if value.name == name:
            dims = value.type.tensor_type.shape.dim
            return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    return []


def _pad(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """Before opset 18 every axis is padded."""
    if len(node.input) < 4 or not node.input[3]:
        return None
    axes, pads, rank = found.value(node.input[3]), found.value(node.input[1]), found.ranks.get(node.input[0])
    if axes is None or pads is None or rank is None:
        return None
    whole = np.zeros(2 * rank, np.int64)
    for index, axis in enumerate(int(axis) % rank for axis in axes.ravel()):
        whole[axis], whole[axis + rank] = pads[index], pads[index + axes.size]
    named = found.constant(whole, f"{node.output[0]}.pads")
    return _rebuilt(node, [node.input[0], named, *node.input[2:3]])


def _layer_norm(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """ONNX LayerNormalization-17, with `stash_type` float32."""
    x, rank, kind = node.input[0], found.ranks.get(node.input[0]), found.like(node.input[0])
    if rank is None or kind is None or any(node.output[1:]) or attribute(node, "stash_type", 1) != 1:
        return None
    axes = list(range(attribute(node, "axis", -1) % rank, rank))
    chain = Chain(node)
    wide = x if kind is np.float32 else chain.add("Cast", x, to=TensorProto.FLOAT)
    normal = _normalized(chain, wide, axes, attribute(node, "epsilon", 1e-5), found)
    return _scaled(node, chain, normal, kind, list(node.input[1:]))


def _normalized(chain: Chain, x: str, axes: list[int], epsilon: float, found: Lowering) -> str:
    """Mean 0 and variance 1 over the axes, in float32."""
    mean = chain.add("ReduceMean", x, axes=axes, keepdims=1)
    centred = chain.add("Sub", x, mean)
    variance = chain.add("ReduceMean", chain.add("Mul", centred, centred), axes=axes, keepdims=1)
    small = found.constant(np.float32(epsilon), f"{x}.epsilon")
    return chain.add("Div", centred, chain.add("Sqrt", chain.add("Add", variance, small)))


def _scaled(node: onnx.NodeProto, chain: Chain, normal: str, kind: Any, scale_bias: list[str]) -> Nodes:
    if kind is not np.float32:
        normal = chain.add("Cast", normal, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    if len(scale_bias) < 2 or not scale_bias[1]:
        return chain.last("Mul", normal, scale_bias[0])
    return chain.last("Add", chain.add("Mul", normal, scale_bias[0]), scale_bias[1])


def _rms_norm(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """ONNX RMSNormalization-23, with `stash_type` float32."""
    x, rank, kind = node.input[0], found.ranks.get(node.input[0]), found.like(node.input[0])
    if rank is None or kind is None or attribute(node, "stash_type", 1) != 1:
        return None
    axes = list(range(attribute(node, "axis", -1) % rank, rank))
    chain = Chain(node)
    wide = x if kind is np.float32 else chain.add("Cast", x, to=TensorProto.FLOAT)
    mean = chain.add("ReduceMean", chain.add("Mul", wide, wide), axes=axes, keepdims=1)
    small = found.constant(np.float32(attribute(node, "epsilon", 1e-5)), f"{x}.epsilon")
    normal = chain.add("Div", wide, chain.add("Sqrt", chain.add("Add", mean, small)))
    return _scaled(node, chain, normal, kind, [node.input[1]])


def _gelu(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """ONNX Gelu-20: exact over Erf, or approximated over Tanh."""
    x, kind = node.input[0], found.like(node.input[0])
    if kind is None:
        return None
    chain = Chain(node)

    def number(value: float, name: str) -> str:
        return found.constant(kind(value), f"{node.output[0]}.{name}")

    half, one = number(0.5, "half"), number(1.0, "one")
    if attribute(node, "approximate", b"none") == b"tanh":
        cube = chain.add("Mul", chain.add("Mul", chain.add("Mul", x, x), x), number(0.044715, "cubic"))
        inner = chain.add("Mul", chain.add("Add", x, cube), number(float(np.sqrt(2 / np.pi)), "slope"))
        bent = chain.add("Tanh", inner)
    else:
        bent = chain.add("Erf", chain.add("Div", x, number(float(np.sqrt(2)), "root")))
    return chain.last("Mul", chain.add("Mul", x, half), chain.add("Add", bent, one))


def _hard_swish(node: onnx.NodeProto, found: Lowering) -> Nodes:
    chain = Chain(node)
    return chain.last("Mul", node.input[0], chain.add("HardSigmoid", node.input[0], alpha=1 / 6, beta=0.5))


def _mish(node: onnx.NodeProto, found: Lowering) -> Nodes:
    chain = Chain(node)
    return chain.last("Mul", node.input[0], chain.add("Tanh", chain.add("Softplus", node.input[0])))


def _swish(node: onnx.NodeProto, found: Lowering) -> Nodes:
    chain, kind = Chain(node), found.like(node.input[0])
    alpha = attribute(node, "alpha", 1.0)
    if kind is None:
        return None
    scale = found.constant(kind(alpha), f"{node.output[0]}.alpha")
    inner = node.input[0] if alpha == 1 else chain.add("Mul", node.input[0], scale)
    return chain.last("Mul", node.input[0], chain.add("Sigmoid", inner))


def _grid_sample(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """Opset 20 named the modes anew."""
    old = {b"linear": "bilinear", b"cubic": "bicubic"}.get(attribute(node, "mode", b"linear"))
    return _rebuilt(node, list(node.input), mode=old) if old and found.opset >= 16 else None


def _shape(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """Before opset 15 a shape came whole."""
    start, end = attribute(node, "start", 0), attribute(node, "end", None)
    chain = Chain(node)
    limits = [np.array([start], np.int64), np.array([2**31 - 1 if end is None else end], np.int64)]
    named = [found.constant(limit, f"{node.output[0]}.{name}") for limit, name in zip(limits, "ab", strict=True)]
    return chain.last("Slice", chain.add("Shape", node.input[0]), *named)


def _cast_like(node: onnx.NodeProto, found: Lowering) -> Nodes:
    kind = found.types.get(node.input[1], "")[7:-1].upper()
    return Chain(node).last("Cast", node.input[0], to=TensorProto.DataType.Value(kind)) if kind else None


def _group_norm(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """ONNX GroupNormalization-18 (scales of groups) and -21 (scales of channels)."""
    x, rank, kind = node.input[0], found.ranks.get(node.input[0]), found.like(node.input[0])
    scale, bias = (found.value(name) for name in node.input[1:3])
    lengths = _lengths(x, found)
    channels = lengths[1] if len(lengths) > 1 else None
    if rank is None or kind is None or scale is None or bias is None or channels is None:
        return None
    groups = attribute(node, "num_groups", 1)
    chain = Chain(node)
    flat = found.constant(np.array([0, groups, -1], np.int64), f"{node.output[0]}.flat")
    wide = x if kind is np.float32 else chain.add("Cast", x, to=TensorProto.FLOAT)
    shape = chain.add("Shape", x)
    normal = _normalized(chain, chain.add("Reshape", wide, flat), [2], attribute(node, "epsilon", 1e-5), found)
    back = chain.add("Reshape", normal, shape)
    each = [np.repeat(v, channels // groups) if v.size == groups != channels else v for v in (scale, bias)]
    named = [
        found.constant(value.reshape(-1, *[1] * (rank - 2)).astype(kind), f"{node.output[0]}.{name}")
        for value, name in zip(each, ("scale", "bias"), strict=True)
    ]
    return _scaled(node, chain, back, kind, named)


_REDUCE = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **{f"Reduce{kind}": _reduce for kind in _REDUCE},
        "Split": _split,
        "Pad": _pad,
        "LayerNormalization": _layer_norm,
        "GroupNormalization": _group_norm,
        "RMSNormalization": _rms_norm,
        "Gelu": _gelu,
        "HardSwish": _hard_swish,
        "Mish": _mish,
        "Swish": _swish,
        "GridSample": _grid_sample,
        "Shape": _shape,
        "CastLike": _cast_like,
    }
)
"""An operator of ONNX's own domain -> how older ones write it."""
