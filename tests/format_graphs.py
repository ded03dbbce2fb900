"""Graphs to quantize weights and tables of, and what the specifications say that the result computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from float_graphs import Net
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import VERSION, Ranges

Feed = Mapping[str, np.ndarray]


class Table(Net):
    """A net whose inputs may be integers."""

    def write(self, path: Path, inputs: Mapping[str, Sequence[int | str]], outputs: Mapping[str, int]) -> Model:
        """`outputs`: their ranks."""
        kinds = {name: TensorProto.FLOAT if name.startswith("x") else TensorProto.INT64 for name in inputs}
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in inputs.items()],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}_{i}" for i in range(rank)])
                for name, rank in outputs.items()
            ],
            [numpy_helper.from_array(values, name) for name, values in self.constants.items()],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9), path)
        return read_model(path)

    def table(self, name: str, rows: int, width: int) -> str:
        return self.constant(name, self.rng.normal(size=(rows, width)) * self.rng.uniform(0.01, 2, (rows, 1)))

    def lookup(self, table: str, ids: str, output: str) -> str:
        return self.node("Gather", [table, ids], output, axis=0)


def recommender(path: Path, users: int = 600, items: int = 900, width: int = 16) -> Model:
    """Two pairs of embeddings, a product of one and a perceptron on the other, as NeuMF (arXiv 1708.05031) has them."""
    net = Table()
    mine = [
        net.lookup(net.table(f"{kind}.{name}", rows, width), name, f"{kind}_{name}")
        for kind in ("gmf", "mlp")
        for name, rows in (("user", users), ("item", items))
    ]
    product = net.node("Mul", mine[:2], "gmf")
    deep = net.node("Concat", mine[2:], "joined", axis=-1)
    for layer, (cin, cout) in enumerate(((2 * width, 64), (64, 32))):
        deep = net.node("Relu", [net.product("Gemm", deep, f"layer{layer}", cin, cout)], f"relu{layer}")
    both = net.node("Concat", [product, deep], "both", axis=-1)
    score = net.node("Sigmoid", [net.product("Gemm", both, "logit", width + 32, 1)], "score")
    return net.write(path, {"user": ("batch",), "item": ("batch",)}, {score: 2})


def pairs(count: int = 64, users: int = 600, items: int = 900) -> Feed:
    rng = np.random.default_rng(3)
    return {"user": rng.integers(0, users, count), "item": rng.integers(0, items, count)}


def encoder(path: Path, width: int = 64, layers: int = 2, heads: int = 4, vocabulary: int = 500) -> Model:
    """A BERT of two layers: words and positions, masked attention, feed-forward with Gelu, LayerNorm behind each."""
    net = Table()
    words = net.lookup(net.table("words", vocabulary, width), "ids", "word")
    length = net.node("Shape", ["ids"], "length", start=1)
    zero, one = net.constant("zero", 0, np.int64), net.constant("one", 1, np.int64)
    scalar = net.node("Squeeze", [length], "scalar")
    places = net.node("Range", [zero, scalar, one], "places")
    x = net.node("Add", [words, net.lookup(net.table("positions", 64, width), places, "place")], "embedded")
    float_mask = net.node("Cast", ["mask"], "float_mask", to=TensorProto.FLOAT)
    away = net.node("Sub", [net.constant("unit", 1), float_mask], "away")
    wide = net.node("Unsqueeze", [away, net.constant("axes", [1, 2], np.int64)], "wide")
    hidden = net.node("Mul", [wide, net.constant("least", np.finfo(np.float32).min)], "hidden")
    for layer in range(layers):
        x = _attend(net, x, hidden, f"l{layer}", width, heads)
    mean = net.node("ReduceMean", [x, net.constant("middle", [1], np.int64)], "mean", keepdims=0)
    net.product("Gemm", mean, "y", width, 8)
    return net.write(path, {"ids": ("batch", "length"), "mask": ("batch", "length")}, {"y": 2})


def _attend(net: Table, x: str, hidden: str, name: str, width: int, heads: int) -> str:
    shape = net.constant(f"{name}.split", [0, 0, heads, width // heads], np.int64)
    turns = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    made = {}
    for part, perm in turns.items():
        flat = net.product("MatMul", x, f"{name}.{part}", width, width)
        made[part] = net.node("Transpose", [net.node("Reshape", [flat, shape], f"{flat}.r")], f"{flat}.t", perm=perm)
    scores = net.node("MatMul", [made["q"], made["k"]], f"{name}.scores")
    scaled = net.node("Mul", [scores, net.constant(f"{name}.scale", (width // heads) ** -0.5)], f"{name}.scaled")
    weights = net.node("Softmax", [net.node("Add", [scaled, hidden], f"{name}.masked")], f"{name}.weights", axis=-1)
    read = net.node(
        "Transpose", [net.node("MatMul", [weights, made["v"]], f"{name}.read")], f"{name}.back", perm=[0, 2, 1, 3]
    )
    joined = net.node("Reshape", [read, net.constant(f"{name}.join", [0, 0, width], np.int64)], f"{name}.joined")
    x = _norm(net, net.node("Add", [x, net.product("MatMul", joined, f"{name}.o", width, width)], f"{name}.a"), width)
    inner = net.node("Gelu", [net.product("MatMul", x, f"{name}.up", width, 4 * width)], f"{name}.gelu")
    return _norm(
        net, net.node("Add", [x, net.product("MatMul", inner, f"{name}.down", 4 * width, width)], f"{name}.b"), width
    )


def _norm(net: Table, x: str, width: int) -> str:
    gain, bias = net.constant(f"{x}.gain", net.rng.uniform(0.5, 2, width)), net.constant(f"{x}.bias", np.zeros(width))
    return net.node("LayerNormalization", [x, gain, bias], f"{x}.norm", axis=-1)


def sentences(count: int = 4, length: int = 12, vocabulary: int = 500) -> Feed:
    rng = np.random.default_rng(5)
    mask = (np.arange(length) < rng.integers(3, length + 1, (count, 1))).astype(np.int64)
    return {"ids": rng.integers(0, vocabulary, (count, length)), "mask": mask}


def no_ranges(model: Model) -> Ranges:
    return Ranges(VERSION, model.digest, "none", 0, {})


def written(model: Model, encoding: Encoding, out: Path) -> Model:
    """Quantized with no ranges, and read back as a user's file is."""
    ranges = no_ranges(model)
    return read_model(quantize(model, ranges, plan_precision(model, ranges, encoding), encoding, out).path)


def answers(path: Path, feed: Feed) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feed))[0]


def stored(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def nodes(path: Path, kind: str) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(path).graph.node if node.op_type == kind]


def attribute(node: onnx.NodeProto, name: str) -> int:
    return next((a.i for a in node.attribute if a.name == name), 0)


def nbits_weight(node: onnx.NodeProto, held: Mapping[str, np.ndarray]) -> np.ndarray:
    """The weight [K, N] of a MatMulNBits, as ONNX Runtime's contributed operators are specified."""
    rows, features, block = (attribute(node, name) for name in ("N", "K", "block_size"))
    bits = attribute(node, "bits")
    codes = _unpacked(held[node.input[1]].reshape(rows, -1), bits).reshape(rows, -1, block).astype(np.float64)
    scale = held[node.input[2]].reshape(rows, -1, 1).astype(np.float64)
    zero = np.full(scale.shape, 2.0 ** (bits - 1))
    if len(node.input) > 3 and node.input[3]:
        zero = _unpacked(held[node.input[3]].reshape(rows, -1), bits)[:, : scale.shape[1], None].astype(np.float64)
    return ((codes - zero) * scale).reshape(rows, -1)[:, :features].T


def _unpacked(held: np.ndarray, bits: int) -> np.ndarray:
    if bits == 8:
        return held
    return np.stack([held & 15, held >> 4], axis=-1).reshape(len(held), -1)


def dequantized(node: onnx.NodeProto, held: Mapping[str, np.ndarray]) -> np.ndarray:
    """What DequantizeLinear makes of stored integers (ONNX, opset 21): a scale for all, a slice of an axis, a block."""
    values, scale = (held[name].astype(np.float32) for name in node.input[:2])
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    block = attribute(node, "block_size")
    if block:
        scale = np.repeat(scale, block, axis=axis).take(range(values.shape[axis]), axis=axis)
    elif scale.ndim:
        scale = scale.reshape([-1 if i == axis % values.ndim else 1 for i in range(values.ndim)])
    return values * scale


def bf16(values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest bfloat16, half to even, by the bits of float32."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16
    return rounded.astype(np.uint32).view(np.float32)


def fp8(values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest of all finite E4M3 numbers, half to the even one, saturated."""
    grid = np.arange(127, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
    size = np.minimum(np.abs(np.asarray(values, np.float64)), grid[-1])
    above = np.searchsorted(grid, size).clip(1, len(grid) - 1)
    low, high = grid[above - 1], grid[above]
    nearer = np.where(size - low == high - size, (above - 1) % 2 == 0, size - low < high - size)
    return (np.sign(values) * np.where(nearer, low, high)).astype(np.float32)
