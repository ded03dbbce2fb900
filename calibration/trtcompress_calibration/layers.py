"""Linear layers: what a convolution or a matrix product computes, as rows times a matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.shapes import Shape

if TYPE_CHECKING:
    import onnx_ir as ir

Array = NDArray[Any]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Kind = Literal["conv", "depthwise", "matmul", "gemm"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One linear layer: `outputs(y) = rows(x) @ matrix(weight) + bias`.

    A depthwise layer is one small system a channel: `rows` are channels times kernel wide, and `matrix` is kernel x
    channels.

    Attributes:
        name: the node.
        x: tensor that it reads.
        weight: stored tensor.
        bias: stored tensor; of the Add behind a MatMul, where there is one.
        y: tensor with the bias added.
        kernel: lengths of the window; like `strides` and `dilations` empty for matrix products.
        pads: starts of all axes, then ends.
        transposed: the stored weight of a Gemm is outputs x features.
    """

    name: str
    kind: Kind
    x: str
    weight: str
    bias: str | None
    y: str
    kernel: Shape = ()
    strides: Shape = ()
    pads: Shape = ()
    dilations: Shape = ()
    transposed: bool = False

    @property
    def may_get_bias(self) -> bool:
        """Whether it has no bias and its operator takes one."""
        return self.bias is None and self.kind != "matmul"

    @property
    def channel_axis(self) -> int:
        """Axis of the channels, of the input and of the output."""
        return -1 if self.kind == "matmul" else 1

    @property
    def window(self) -> int:
        """Places in the kernel."""
        return math.prod(self.kernel)

    def features(self, x: Shape) -> int:
        """Width of a row."""
        return x[self.channel_axis] * self.window

    def reads_alike(self) -> tuple[object, ...]:
        """Layers for which this is equal have the same rows."""
        return self.x, self.kernel, self.strides, self.pads, self.dilations, self.channel_axis

    def rows(self, x: Array, places: Ints | None = None) -> NDArray[np.float32]:
        """What the layer multiplies with its matrix, [n, features] in float32.

        Args:
            x: the input.
            places: rows to take, counted over batch and positions; None: all.
        """
        if not self.kernel:
            return _taken(x.reshape(-1, x.shape[-1]), places)
        if self.window == 1 and set(self.strides) == {1} and not any(self.pads):
            return self.outputs(x, places)
        rank = len(self.kernel)
        widths = [(0, 0), (0, 0), *zip(self.pads[:rank], self.pads[rank:], strict=True)]
        padded = np.pad(x, widths) if any(self.pads) else x
        reach = tuple(d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True))
        seen = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(2, 2 + rank)))
        every = tuple(slice(None, None, s) for s in self.strides)
        inside = tuple(slice(None, None, d) for d in self.dilations)
        seen = np.moveaxis(seen[(slice(None), slice(None), *every, *inside)], 1, 1 + rank)  # batch, places, channels
        if places is not None:
            seen = seen[np.unravel_index(places, seen.shape[: 1 + rank])]
        return seen.reshape(-1, x.shape[1] * self.window).astype(np.float32, copy=False)

    def outputs(self, y: Array, places: Ints | None = None) -> NDArray[np.float32]:
        """The output as rows, [n, outputs] in float32."""
        if not self.kernel:
            return _taken(y.reshape(-1, y.shape[-1]), places)
        moved = np.moveaxis(y, 1, -1)
        if places is not None and 2 * len(places) < moved.size // moved.shape[-1]:
            return moved[np.unravel_index(places, moved.shape[:-1])].astype(np.float32, copy=False)
        return _taken(moved.reshape(-1, y.shape[1]), places)

    def count(self, x: Shape) -> int:
        """Rows of an input of this shape."""
        if not self.kernel:
            return math.prod(x[:-1])
        rank = len(self.kernel)
        ends = zip(x[2:], self.pads[:rank], self.pads[rank:], self.dilations, self.kernel, self.strides, strict=True)
        lengths = ((n + a + b - d * (k - 1) - 1) // s + 1 for n, a, b, d, k, s in ends)
        return math.prod((x[0], *lengths))

    def matrix(self, weight: Array) -> NDArray[np.float64]:
        """The weight as [features, outputs]; of a depthwise layer [kernel, channels]."""
        if self.kernel:
            return weight.reshape(len(weight), -1).T.astype(np.float64)
        return (weight.T if self.transposed else weight).astype(np.float64)

    def stored(self, matrix: Array, like: Array) -> Array:
        """A matrix in the form of the stored weight `like`."""
        turned = matrix.T if self.kernel or self.transposed else matrix
        return np.ascontiguousarray(turned.reshape(like.shape), like.dtype)

    def features_of(self, channels: Bools) -> Bools:
        """Which features live when these channels of the input do."""
        return np.repeat(channels, self.window)


def _taken(rows: Array, places: Ints | None) -> NDArray[np.float32]:
    return (rows if places is None else rows[places]).astype(np.float32, copy=False)


def linear_layers(graph: ir.Graph, shapes: Mapping[str, Shape]) -> tuple[Layer, ...]:
    """Convolutions of one group, depthwise ones, Gemm, and MatMul with a stored matrix, in the order of the graph.

    Left out are other grouped and transposed convolutions, a Gemm with factors or a transposed input, and automatic
    padding.
    """
    found = (_READERS[node.op_type](node, shapes) for node in graph if node.op_type in _READERS and not node.domain)
    return tuple(layer for layer in found if layer is not None)


def _conv(node: ir.Node, shapes: Mapping[str, Shape]) -> Layer | None:
    x, weight = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if x is None or not _stored(weight) or not (bias is None or _stored(bias)):
        return None
    shape, source = _shape(weight, shapes), _shape(x, shapes)
    groups = _int(node, "group", 1)
    if _text(node, "auto_pad") not in ("", "NOTSET") or len(source) != len(shape) or not shape:
        return None
    if groups > 1 and not groups == source[1] == shape[0]:
        return None
    rank = len(shape) - 2
    return Layer(
        str(node.name),
        "conv" if groups == 1 else "depthwise",
        *_names(x, weight, bias, node.outputs[0]),
        shape[2:],
        _ints(node, "strides", (1,) * rank),
        _ints(node, "pads", (0,) * (2 * rank)),
        _ints(node, "dilations", (1,) * rank),
    )


def _gemm(node: ir.Node, shapes: Mapping[str, Shape]) -> Layer | None:
    x, weight = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if x is None or not _stored(weight) or _int(node, "transA", 0) or len(_shape(x, shapes)) != 2:
        return None
    transposed = bool(_int(node, "transB", 0))
    shape = _shape(weight, shapes)
    if bias is not None and not (_stored(bias) and _shape(bias, shapes) == (shape[0 if transposed else 1],)):
        return None
    if _float(node, "alpha") != 1 or _float(node, "beta") != 1:
        return None
    return Layer(str(node.name), "gemm", *_names(x, weight, bias, node.outputs[0]), transposed=transposed)


def _matmul(node: ir.Node, shapes: Mapping[str, Shape]) -> Layer | None:
    x, weight = node.inputs
    if x is None or not _stored(weight) or len(_shape(weight, shapes)) != 2 or len(_shape(x, shapes)) < 2:
        return None
    y, bias = node.outputs[0], None
    uses = tuple(y.uses())
    if len(uses) == 1 and not y.is_graph_output() and uses[0].node.op_type == "Add":
        adds = uses[0].node
        other = adds.inputs[1 - uses[0].idx]
        if _stored(other) and _shape(other, shapes) == _shape(weight, shapes)[1:]:
            y, bias = adds.outputs[0], other
    return Layer(str(node.name), "matmul", *_names(x, weight, bias, y))


_READERS = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}


def _names(
    x: ir.Value, weight: ir.Value | None, bias: ir.Value | None, y: ir.Value
) -> tuple[str, str, str | None, str]:
    assert weight is not None
    return str(x.name), str(weight.name), None if bias is None else str(bias.name), str(y.name)


def _stored(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.const_value is not None


def _shape(value: ir.Value | None, shapes: Mapping[str, Shape]) -> Shape:
    return () if value is None else shapes.get(str(value.name), ())


def _int(node: ir.Node, name: str, default: int) -> int:
    held = node.attributes.get(name)
    return default if held is None else held.as_int()


def _float(node: ir.Node, name: str) -> float:
    held = node.attributes.get(name)
    return 1.0 if held is None else held.as_float()


def _text(node: ir.Node, name: str) -> str:
    held = node.attributes.get(name)
    return "" if held is None else held.as_string()


def _ints(node: ir.Node, name: str, default: Shape) -> Shape:
    held = node.attributes.get(name)
    return default if held is None else tuple(held.as_ints())
