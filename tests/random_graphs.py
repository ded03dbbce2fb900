"""Small random graphs to prune: hypothesis draws which operators follow one another, a seed draws the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import strategies as st
from onnx import helper

from onnx_models import model, value

Draw = Callable[[st.SearchStrategy[Any]], Any]
Array = np.ndarray

BATCH = 2
WIDTHS = (6, 8, 12, 16)


@dataclass
class Sketch:
    """A graph that grows; each operator runs at once, so that its weights are scaled by what comes out.

    Attributes:
        values: what each tensor is for a random input.
        unread: tensors that no operator has read yet.
    """

    draw: Draw
    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    unread: dict[str, None] = field(default_factory=dict)

    def number(self, *choices: int) -> int:
        return int(self.draw(st.sampled_from(choices)))

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        return self.nodes_of(op, 1, *inputs, **attributes)[0]

    def nodes_of(self, op: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add an operator of so many outputs and run it."""
        number = len(self.nodes)
        outputs = [f"t{number}" if count == 1 else f"t{number}_{i}" for i in range(count)]
        node = helper.make_node(op, inputs, outputs, name=f"{op.lower()}{number}", **attributes)
        given = {name: self.weights.get(name, self.values.get(name)) for name in inputs if name}
        self.values.update(zip(outputs, _run(node, given), strict=True))
        self.nodes.append(node)
        for name in inputs:
            self.unread.pop(name, None)
        self.unread.update(dict.fromkeys(outputs))
        return outputs

    def weight(self, *shape: int) -> str:
        return self.stored(self.rng.standard_normal(shape) * 1.4 / np.sqrt(max(1, np.prod(shape[1:]))))

    def factor(self, *shape: int) -> str:
        return self.stored(self.rng.uniform(0.6, 1.4, shape))

    def shift(self, *shape: int) -> str:
        return self.stored(self.rng.standard_normal(shape) * 0.3)

    def stored(self, array: Any) -> str:
        array = np.asarray(array)
        name = f"w{len(self.weights)}"
        self.weights[name] = array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.values[name].shape)

    def others(self, like: str, axes: tuple[int, ...]) -> list[str]:
        """Tensors of the same rank that have the same lengths along these axes."""
        shape = self.shape(like)
        return [
            name
            for name, held in self.values.items()
            if held.ndim == len(shape) and name != "x" and all(held.shape[axis] == shape[axis] for axis in axes)
        ]


def _run(node: onnx.NodeProto, given: dict[str, Array]) -> list[Array]:
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    inputs = [value(name, array.shape, kinds[name]) for name, array in given.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    proto = model([node], inputs, outputs, {}, opset=20)
    made: list[Array] = ort.InferenceSession(proto.SerializeToString(), _QUIET).run(None, given)
    return made


_QUIET = ort.SessionOptions()
_QUIET.log_severity_level = 4
_QUIET.intra_op_num_threads = 1

Step = Callable[[Sketch, str], str]


def _divisors(*numbers: int) -> list[int]:
    common = int(np.gcd.reduce(numbers))
    return [n for n in range(1, common + 1) if common % n == 0]


# Maps [batch, channels, height, width]


def conv(s: Sketch, x: str) -> str:
    channels, width = s.shape(x)[1], s.number(*WIDTHS)
    groups = s.number(*_divisors(channels, width)) if s.number(0, 1) else 1
    kernel = s.number(1, 3)
    weight = s.weight(width, channels // groups, kernel, kernel)
    return s.node("Conv", x, weight, s.shift(width), pads=[kernel // 2] * 4, group=groups)


def depthwise(s: Sketch, x: str) -> str:
    channels, times = s.shape(x)[1], s.number(1, 2)
    weight = s.weight(channels * times, 1, 3, 3)
    return s.node("Conv", x, weight, s.shift(channels * times), pads=[1] * 4, group=channels)


def conv_transpose(s: Sketch, x: str) -> str:
    channels, width = s.shape(x)[1], s.number(*WIDTHS)
    groups = s.number(*_divisors(channels, width)) if s.number(0, 1) else 1
    weight = s.stored(s.rng.standard_normal((channels, width // groups, 3, 3)) * 1.4 / np.sqrt(9 * channels / groups))
    return s.node("ConvTranspose", x, weight, s.shift(width), pads=[1] * 4, group=groups)


def batch_norm(s: Sketch, x: str) -> str:
    channels = s.shape(x)[1]
    return s.node("BatchNormalization", x, s.factor(channels), s.shift(channels), s.shift(channels), s.factor(channels))


def instance_norm(s: Sketch, x: str) -> str:
    channels = s.shape(x)[1]
    return s.node("InstanceNormalization", x, s.factor(channels), s.shift(channels))


def shuffle(s: Sketch, x: str) -> str:
    _, channels, height, width = s.shape(x)
    groups = s.number(*_divisors(channels))
    wide = s.node("Reshape", x, s.stored([0, groups, channels // groups, height, width]))
    turned = s.node("Transpose", wide, perm=[0, 2, 1, 3, 4])
    return s.node("Reshape", turned, s.stored([0, s.number(channels, -1), height, width]))


def squeeze_excite(s: Sketch, x: str) -> str:
    channels, hidden = s.shape(x)[1], s.number(4, 6)
    mean = s.node("GlobalAveragePool", x)
    less = s.node("Relu", s.node("Conv", mean, s.weight(hidden, channels, 1, 1), s.factor(hidden)))
    gate = s.node("Sigmoid", s.node("Conv", less, s.weight(channels, hidden, 1, 1), s.shift(channels)))
    return s.node("Mul", x, gate)


def places(s: Sketch, x: str) -> str:
    """To a sequence of places."""
    _, channels, height, width = s.shape(x)
    flat = s.node("Reshape", x, s.stored([0, channels, height * width]))
    return s.node("Transpose", flat, perm=[0, 2, 1])


def pool(s: Sketch, x: str) -> str:
    return s.node(["MaxPool", "AveragePool"][s.number(0, 1)], x, kernel_shape=[3, 3], pads=[1] * 4)


def flatten(s: Sketch, x: str) -> str:
    return s.node("Flatten", x, axis=1)


def averaged(s: Sketch, x: str) -> str:
    return s.node("Flatten", s.node("GlobalAveragePool", x), axis=1)


# Sequences [batch, words, channels]


def linear(s: Sketch, x: str) -> str:
    width = s.number(*WIDTHS)
    channels = s.shape(x)[-1]
    weight = s.stored(s.rng.standard_normal((channels, width)) * 1.4 / np.sqrt(channels))
    return s.node("Add", s.node("MatMul", x, weight), s.shift(width))


def layer_norm(s: Sketch, x: str) -> str:
    channels = s.shape(x)[-1]
    return s.node("LayerNormalization", x, s.factor(channels), s.shift(channels), axis=-1)


def attention(s: Sketch, x: str) -> str:
    """Heads of queries share those of keys where there are fewer."""
    width = s.shape(x)[2]
    heads, size = s.number(2, 4), s.number(4, 6)
    shared = s.number(*_divisors(heads))

    def projected(count: int, perm: list[int]) -> str:
        weight = s.stored(s.rng.standard_normal((width, count * size)) * 1.4 / np.sqrt(width))
        told = s.node("Add", s.node("MatMul", x, weight), s.shift(count * size))
        split = s.node("Transpose", s.node("Reshape", told, s.stored([0, 0, count, size])), perm=perm)
        if count == heads:
            return split
        shape = s.shape(split)
        apart = s.node("Unsqueeze", split, s.stored([2]))
        again = s.node("Expand", apart, s.stored([1, 1, heads // count, 1, 1]))
        return s.node("Reshape", again, s.stored([0, heads, *shape[2:]]))

    keys, values = projected(shared, [0, 2, 3, 1]), projected(shared, [0, 2, 1, 3])
    scores = s.node("Softmax", s.node("MatMul", projected(heads, [0, 2, 1, 3]), keys), axis=-1)
    mixed = s.node("Transpose", s.node("MatMul", scores, values), perm=[0, 2, 1, 3])
    flat = s.node("Reshape", mixed, s.stored([0, 0, heads * size]))
    weight = s.stored(s.rng.standard_normal((heads * size, width)) * 1.4 / np.sqrt(heads * size))
    return s.node("MatMul", flat, weight)


def mean_of_words(s: Sketch, x: str) -> str:
    return s.node("ReduceMean", x, s.stored([1]), keepdims=0)


# Vectors [batch, channels]


def gemm(s: Sketch, x: str) -> str:
    channels, width = s.shape(x)[1], s.number(*WIDTHS)
    if s.number(0, 1):
        return s.node("Gemm", x, s.weight(width, channels), s.shift(width), transB=1)
    weight = s.stored(s.rng.standard_normal((channels, width)) * 1.4 / np.sqrt(channels))
    return s.node("Gemm", x, weight, s.shift(width))


# Tensors of any rank; the axis of the channels is 1, and the last of a sequence


def _channels(s: Sketch, x: str) -> int:
    return 2 if len(s.shape(x)) == 3 else 1


def activation(s: Sketch, x: str) -> str:
    op = s.draw(st.sampled_from(["Relu", "LeakyRelu", "Sigmoid", "Tanh", "Softplus", "PRelu"]))
    if op == "PRelu":
        return s.node(op, x, s.factor(*(n if i == _channels(s, x) else 1 for i, n in enumerate(s.shape(x)[1:], 1))))
    return s.node(op, x)


def elementwise(s: Sketch, x: str) -> str:
    """With a tensor of the same shape, or of one channel; a product goes through a sigmoid."""
    axis = _channels(s, x)
    rest = tuple(i for i in range(len(s.shape(x))) if i != axis)
    same = [name for name in s.others(x, rest) if s.shape(name)[axis] in (1, s.shape(x)[axis])]
    other = s.draw(st.sampled_from(same)) if same else x
    if s.number(0, 1):
        return s.node("Add", x, other)
    return s.node("Mul", x, s.node("Sigmoid", other))


def concat(s: Sketch, x: str) -> str:
    axis = _channels(s, x)
    rest = tuple(i for i in range(len(s.shape(x))) if i != axis)
    return s.node("Concat", x, s.draw(st.sampled_from(s.others(x, rest) or [x])), axis=axis)


def split(s: Sketch, x: str) -> str:
    """In parts that may differ; one of them goes on, the others are there for later."""
    axis = _channels(s, x)
    channels = s.shape(x)[axis]
    if channels < 4:
        return x
    first = s.number(*range(2, channels - 1))
    parts = s.nodes_of("Split", 2, x, s.stored([first, channels - first]), axis=axis)
    return parts[s.number(0, 1)]


def sliced(s: Sketch, x: str) -> str:
    axis = _channels(s, x)
    channels = s.shape(x)[axis]
    if channels < 4:
        return x
    start, step = s.number(*range(channels - 3)), s.number(1, 1, 2)
    end = s.number(*range(start + 2, channels + 1), 1 << 40)
    return s.node("Slice", x, s.stored([start]), s.stored([end]), s.stored([axis]), s.stored([step]))


def padded(s: Sketch, x: str) -> str:
    axis, rank = _channels(s, x), len(s.shape(x))
    amounts = np.zeros((2, rank), np.int64)
    amounts[:, axis] = s.number(0, 1, 2), s.number(0, 1, 3)
    return s.node("Pad", x, s.stored(amounts.reshape(-1)))


def picked(s: Sketch, x: str) -> str:
    """Some channels in another order."""
    axis = _channels(s, x)
    channels = s.shape(x)[axis]
    order = s.rng.permutation(channels)[: s.number(channels, max(2, channels // 2))]
    return s.node("Gather", x, s.stored(order), axis=axis)


def scaled(s: Sketch, x: str) -> str:
    axis = _channels(s, x)
    shape = [n if i == axis else 1 for i, n in enumerate(s.shape(x)[1:], 1)]
    return s.node("Mul", x, s.factor(*shape))


def _length(s: Sketch, x: str) -> str:
    """The number of channels, as the graph reads it from a shape."""
    axis = _channels(s, x)
    place = s.number(axis, axis - len(s.shape(x)))
    return s.node("Gather", s.node("Shape", x), s.stored([place]), axis=0)


def by_length(s: Sketch, x: str) -> str:
    """Divided by the root of the number of channels."""
    root = s.node("Sqrt", s.node("Cast", _length(s, x), to=onnx.TensorProto.FLOAT))
    return s.node("Mul", s.node("Div", x, root), s.stored(np.sqrt(s.shape(x)[_channels(s, x)])))


def less_mean(s: Sketch, x: str) -> str:
    """Without the mean over the channels, which is their sum by their number."""
    total = s.node("ReduceSum", x, s.stored([_channels(s, x)]), keepdims=1)
    return s.node("Sub", x, s.node("Div", total, s.node("Cast", _length(s, x), to=onnx.TensorProto.FLOAT)))


def by_size(s: Sketch, x: str) -> str:
    """Divided by the root of the number of all elements of an example."""
    size = s.node("Div", s.node("Size", x), s.node("Gather", s.node("Shape", x), s.stored(0)))
    root = s.node("Sqrt", s.node("Cast", size, to=onnx.TensorProto.FLOAT))
    return s.node("Mul", s.node("Div", x, root), s.stored(np.sqrt(np.prod(s.shape(x)[1:]))))


def flat_by_length(s: Sketch, x: str) -> str:
    """All but the batch in one axis, by a target that is computed; the same number divides the result."""
    shape = s.node("Shape", x)
    batch, rest = (s.node("Slice", shape, s.stored([a]), s.stored([b])) for a, b in ((0, 1), (1, 4)))
    number = s.node("ReduceProd", rest, keepdims=1)
    flat = s.node("Reshape", x, s.node("Concat", batch, number, axis=0))
    root = s.node("Sqrt", s.node("Cast", number, to=onnx.TensorProto.FLOAT))
    return s.node("Mul", s.node("Div", flat, root), s.stored(np.sqrt(s.shape(flat)[1])))


ANY: tuple[Step, ...] = (
    *(activation, elementwise, concat, split, sliced, padded, picked, scaled),
    *(by_length, less_mean, by_size, flat_by_length),
)
STEPS: dict[int, tuple[Step, ...]] = {
    4: (
        *(conv, conv, conv_transpose, depthwise, batch_norm, instance_norm, shuffle, squeeze_excite, pool),
        *(places, flatten, averaged),
    ),
    3: (linear, linear, layer_norm, attention, attention, mean_of_words),
    2: (gemm, gemm, layer_norm),
}
LARGEST = 160
"""Tensors with more channels than this are not worked on further."""


@st.composite
def graphs(draw: Draw, steps: int = 9) -> onnx.ModelProto:
    """A graph over images or words [batch, ...] with an output for each tensor that is left over."""
    s = Sketch(draw, np.random.default_rng(draw(st.integers(0, 2**20))))
    shape = draw(st.sampled_from([(3, 4, 4), (5, 6), (10,)]))
    s.values["x"] = s.rng.standard_normal((BATCH, *shape)).astype(np.float32)
    x = {4: conv, 3: linear, 2: gemm}[1 + len(shape)](s, "x")
    for _ in range(draw(st.integers(2, steps))):
        choices = [*STEPS[len(s.shape(x))], *ANY] if s.shape(x)[_channels(s, x)] <= LARGEST else [activation]
        x = draw(st.sampled_from(choices))(s, x)
        if draw(st.integers(0, 3)) == 0:
            x = draw(st.sampled_from([name for name, held in s.values.items() if name != "x" and held.ndim in STEPS]))
    outputs = [_head(s, name) for name in list(s.unread)]
    return model(
        s.nodes,
        [value("x", ["batch", *shape])],
        [value(name, ["batch", *s.shape(name)[1:]]) for name in outputs],
        s.weights,
        opset=20,
    )


def _head(s: Sketch, x: str) -> str:
    """Three numbers."""
    if len(s.shape(x)) == 4:
        x = averaged(s, x)
    if len(s.shape(x)) == 3:
        x = mean_of_words(s, x)
    return s.node("Gemm", x, s.weight(3, s.shape(x)[1]), s.shift(3), transB=1)
