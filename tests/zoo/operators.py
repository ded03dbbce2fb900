"""Attention, embeddings and mixing by hand, and graphs that no exporter makes."""

from __future__ import annotations

import math

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import Tensor, nn

from onnx_models import model, value

from .entries import BATCH, WORDS, onnx_graph, torch_graph

SEQUENCE = {"x": {"batch": BATCH, "sequence@1": WORDS}}
Made = tuple[nn.Module, Tensor]


def tokens(width: int = 24) -> Tensor:
    return torch.randn(2, 7, width)


class Residual(nn.Module):
    """Layers over words around which the input goes past, between two linear maps."""

    def __init__(self, width: int, *layers: nn.Module) -> None:
        super().__init__()
        self.inputs, self.layers, self.outputs = nn.Linear(24, width), nn.ModuleList(layers), nn.Linear(width, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(x)
        for layer in self.layers:
            x = x + layer(x)
        out: Tensor = self.outputs(x)
        return out


class EinsumAttention(nn.Module):
    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(width, heads, size))
        self.key = nn.Parameter(torch.randn(width, heads, size))
        self.value = nn.Parameter(torch.randn(width, heads, size + 2))
        self.out = nn.Parameter(torch.randn(heads, size + 2, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btd,dhk->bthk", x, w) for w in (self.query, self.key, self.value))
        scores = (torch.einsum("bqhk,bshk->bhqs", q, k) / math.sqrt(q.shape[-1])).softmax(-1)
        return torch.einsum("bhqs,bshk,hkd->bqd", scores, v, self.out)


@torch_graph(axes=SEQUENCE)
def einsum_attention() -> Made:
    """Values are wider than queries and keys."""
    return Residual(36, EinsumAttention(36, 4, 8)), tokens()


class UnboundAttention(nn.Module):
    """Queries, keys and values of one map, unbound; normalized in each head."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * heads * size), nn.Linear(heads * size, width)
        self.norm = nn.LayerNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (self.norm(q) @ k.transpose(-2, -1) * 0.3).softmax(-1)
        out: Tensor = self.out((scores @ v).transpose(1, 2).flatten(2))
        return out


@torch_graph(axes=SEQUENCE)
def unbound_attention() -> Made:
    return Residual(36, UnboundAttention(36, 3, 10), UnboundAttention(36, 2, 14)), tokens()


@torch_graph(axes={"input": {"batch@1": BATCH}})
def torch_encoder() -> Made:
    """PyTorch's own encoder layer, with words first inside."""
    layer = nn.TransformerEncoderLayer(36, 3, 52, batch_first=False, norm_first=True)
    return nn.Sequential(nn.Linear(24, 36), layer, nn.Linear(36, 6)), torch.randn(7, 2, 24)


class LinearAttention(nn.Module):
    """Attention without softmax over words: keys and values are summed first."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, heads * size) for _ in range(3))
        self.out = nn.Linear(heads * size, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.query, self.key, self.value))
        q, k = q.softmax(-1), F.elu(k) + 1
        told = k.transpose(-2, -1) @ v
        scale = (q * k.sum(-2, keepdim=True)).sum(-1, keepdim=True)
        out: Tensor = self.out((q @ told / scale).transpose(1, 2).flatten(2))
        return out


@torch_graph(axes=SEQUENCE)
def linear_attention() -> Made:
    return Residual(36, LinearAttention(36, 3, 10)), tokens()


class ChannelAttention(nn.Module):
    """Channels attend to channels: the scores' axes are channels, and the softmax runs over them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, hidden) for _ in range(3))
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.normalize(self.query(x), dim=1), F.normalize(self.key(x), dim=1), self.value(x)
        scores = (q.transpose(1, 2) @ k).softmax(-1)
        out: Tensor = self.out((scores @ v.transpose(1, 2)).transpose(1, 2))
        return out


@torch_graph(axes=SEQUENCE)
def channel_attention() -> Made:
    return Residual(36, ChannelAttention(36, 20)), tokens()


class Mixer(nn.Module):
    """Linear maps along words, then along channels."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.along = nn.Sequential(nn.Linear(words, 20), nn.GELU(), nn.Linear(20, words))
        self.across = nn.Sequential(nn.Linear(width, 52), nn.GELU(), nn.Linear(52, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.along(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return self.across(self.norms[1](x))


@torch_graph(axes={"x": {"batch": BATCH}})
def mixer() -> Made:
    return Residual(36, Mixer(7, 36), Mixer(7, 36)), tokens()


class Tied(nn.Module):
    """The output layer is the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 28), nn.Embedding(7, 28)
        self.body = nn.Sequential(nn.Linear(28, 44), nn.ReLU(), nn.Linear(44, 28), nn.LayerNorm(28))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places.weight
        return F.linear(x + self.body(x), self.words.weight)


@torch_graph(axes={"ids": {"batch": BATCH}}, below={"ids": 50})
def tied() -> Made:
    return Tied(), torch.arange(14).reshape(2, 7)


class Recommender(nn.Module):
    """Two pairs of embeddings: one is multiplied, one goes through layers, both are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(40, 16), nn.Embedding(60, 16)
        self.user_deep, self.item_deep = nn.Embedding(40, 20), nn.Embedding(60, 28)
        self.deep = nn.Sequential(nn.Linear(48, 36), nn.ReLU(), nn.Linear(36, 12), nn.ReLU())
        self.head = nn.Linear(28, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        product = self.user(user) * self.item(item)
        deep = self.deep(torch.cat([self.user_deep(user), self.item_deep(item)], -1))
        out: Tensor = self.head(torch.cat([product, deep], -1)).sigmoid()
        return out


@torch_graph(axes={"user": {"batch": BATCH}, "item": {"batch": BATCH}}, below={"user": 40, "item": 60})
def recommender() -> tuple[nn.Module, dict[str, Tensor]]:
    return Recommender(), {"user": torch.tensor([3, 5]), "item": torch.tensor([7, 50])}


class Siamese(nn.Module):
    """One tower for two inputs; what comes out is how much they are alike, and how far apart."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(24, 44), nn.ReLU(), nn.Linear(44, 20))
        self.bilinear = nn.Bilinear(20, 20, 3)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b = self.tower(left), self.tower(right)
        return F.cosine_similarity(a, b), (a - b).square().sum(-1), self.bilinear(a, b)


@torch_graph(axes={"left": {"batch": BATCH}, "right": {"batch": BATCH}})
def siamese() -> tuple[nn.Module, dict[str, Tensor]]:
    return Siamese(), {"left": torch.randn(2, 24), "right": torch.randn(2, 24)}


class Modulated(nn.Module):
    """A condition scales and shifts each layer's channels (FiLM), its maps split in two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 20, 3, 1, 1), nn.Conv2d(20, 28, 3, 1, 1)
        self.told = nn.Sequential(nn.Linear(9, 16), nn.SiLU())
        self.one, self.two = nn.Linear(16, 40), nn.Linear(16, 56)
        self.head = nn.Conv2d(28, 4, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        told = self.told(condition)
        for conv, film in ((self.first, self.one), (self.second, self.two)):
            scale, shift = film(told)[:, :, None, None].chunk(2, 1)
            x = F.relu(conv(x) * (scale + 1) + shift)
        out: Tensor = self.head(x)
        return out


@torch_graph(axes={"x": {"batch": BATCH}, "condition": {"batch": BATCH}})
def modulated() -> tuple[nn.Module, dict[str, Tensor]]:
    return Modulated(), {"x": torch.randn(2, 3, 8, 8), "condition": torch.randn(2, 9)}


class Sampled(nn.Module):
    """An encoder whose last layer is split in mean and spread, with the noise as an input."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(24, 36), nn.ReLU(), nn.Linear(36, 20))
        self.decode = nn.Sequential(nn.Linear(10, 28), nn.Softplus(), nn.Linear(28, 24))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        mean, spread = self.encode(x).split(10, -1)
        out: Tensor = self.decode(mean + noise * (0.5 * spread).exp())
        return out


@torch_graph(axes={"x": {"batch": BATCH}, "noise": {"batch": BATCH}})
def sampled() -> tuple[nn.Module, dict[str, Tensor]]:
    return Sampled(), {"x": torch.randn(2, 24), "noise": torch.randn(2, 10)}


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) * 1.3 / math.sqrt(math.prod(shape[1:]) or 1)).astype(np.float32)


def _conv_weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A weight and a bias for each name."""
    rng = np.random.default_rng(0)
    made = {}
    for name, shape in shapes.items():
        made[f"{name}.weight"] = _weights(rng, *shape)
        made[f"{name}.bias"] = (rng.standard_normal(shape[0]) * 0.3).astype(np.float32)
    return made


def _conv(name: str, source: str, out: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, f"{name}.weight", f"{name}.bias"], [out], name=name, pads=[1, 1, 1, 1])


IMAGES = [value("x", ["batch", 3, 8, 8])]
SCORES = [value("y", ["batch", 5, 8, 8])]


@onnx_graph(axes={"x": {"batch": BATCH}})
def branches() -> onnx.ModelProto:
    """An `If` whose branches read a tensor and a weight of the graph around them."""
    then = helper.make_graph([_conv("inner", "a", "t")], "then", [], [value("t", None)])
    other = helper.make_graph([helper.make_node("Neg", ["a"], ["e"], name="neg")], "else", [], [value("e", None)])
    return model(
        [
            _conv("first", "x", "c"),
            helper.make_node("Relu", ["c"], ["a"], name="relu"),
            helper.make_node("ReduceSum", ["x"], ["sum"], name="sum", keepdims=0),
            helper.make_node("Greater", ["sum", "zero"], ["positive"], name="positive"),
            helper.make_node("If", ["positive"], ["b"], name="if", then_branch=then, else_branch=other),
            _conv("second", "b", "d"),
            helper.make_node("Relu", ["d"], ["f"], name="relu2"),
            _conv("last", "f", "y"),
        ],
        IMAGES,
        SCORES,
        _conv_weights(first=(12, 3, 3, 3), inner=(12, 12, 3, 3), second=(20, 12, 3, 3), last=(5, 20, 3, 3))
        | {"zero": np.array(0, np.float32)},
    )


@onnx_graph(axes={"x": {"batch": BATCH}})
def loop() -> onnx.ModelProto:
    """A `Loop` that carries a map through one convolution three times."""
    body = helper.make_graph(
        [
            _conv("inner", "carried", "c0"),
            helper.make_node("Tanh", ["c0"], ["c1"], name="tanh"),
            helper.make_node("Identity", ["go"], ["go_on"], name="go_on"),
        ],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("carried", None)],
        [value("go_on", [], TensorProto.BOOL), value("c1", None)],
    )
    return model(
        [
            _conv("first", "x", "a"),
            helper.make_node("Loop", ["times", "start", "a"], ["b"], name="loop", body=body),
            _conv("second", "b", "d"),
            helper.make_node("Relu", ["d"], ["f"], name="relu"),
            _conv("last", "f", "y"),
        ],
        IMAGES,
        SCORES,
        _conv_weights(first=(12, 3, 3, 3), inner=(12, 12, 3, 3), second=(20, 12, 3, 3), last=(5, 20, 3, 3))
        | {"times": np.array(3), "start": np.array(True)},
    )


def _shape_chain(middle: list[onnx.NodeProto], places: int, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Channels and places, flattened to a shape that is computed from the tensor's own shape at run time."""
    return model(
        [
            _conv("first", "x", "c"),
            helper.make_node("Relu", ["c"], ["a"], name="relu"),
            helper.make_node("Shape", ["a"], ["shape"], name="shape"),
            helper.make_node("Gather", ["shape", "zero"], ["batch"], name="batch", axis=0),
            helper.make_node("Gather", ["shape", "one"], ["channels"], name="channels", axis=0),
            helper.make_node("Concat", ["batch", "channels", "rest"], ["flat_shape"], name="join", axis=0),
            helper.make_node("Reshape", ["a", "flat_shape"], ["flat"], name="flat"),
            *middle,
            helper.make_node("Mul", ["channels", "places_each"], ["wide"], name="wide"),
            helper.make_node("Concat", ["batch", "wide"], ["vector_shape"], name="join2", axis=0),
            helper.make_node("Reshape", [middle[-1].output[0], "vector_shape"], ["v"], name="vector"),
            helper.make_node("Gemm", ["v", "head.weight", "head.bias"], ["y"], name="head", transB=1),
        ],
        IMAGES,
        [value("y", ["batch", 5])],
        _conv_weights(first=(12, 3, 3, 3), head=(5, 12 * places))
        | {"zero": np.array([0]), "one": np.array([1]), "rest": np.array([-1]), "places_each": np.array([places])}
        | weights,
    )


@onnx_graph(axes={"x": {"batch": BATCH}})
def shape_chain() -> onnx.ModelProto:
    """Every place of a channel falls with it."""
    return _shape_chain([helper.make_node("Tanh", ["flat"], ["m"], name="tanh")], 64, {})


@onnx_graph(axes={"x": {"batch": BATCH}})
def shape_chain_of_two() -> onnx.ModelProto:
    """A product mixes the places before they are flattened, so that two widths make one axis."""
    mix = helper.make_node("MatMul", ["flat", "places"], ["m"], name="along")
    return _shape_chain([mix], 6, {"places": _weights(np.random.default_rng(3), 64, 6)})


@onnx_graph(axes={"x": {"batch": BATCH}})
def shared_weight() -> onnx.ModelProto:
    """One convolution's weight is used twice in a row, and once more with another bias."""
    return model(
        [
            _conv("first", "x", "a"),
            _conv("same", "a", "b"),
            helper.make_node("Relu", ["b"], ["c"], name="relu"),
            helper.make_node("Conv", ["c", "same.weight", "other"], ["d"], name="again", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["d"], ["e"], name="relu2"),
            _conv("last", "e", "y"),
        ],
        IMAGES,
        SCORES,
        _conv_weights(first=(12, 3, 3, 3), same=(12, 12, 3, 3), last=(5, 12, 3, 3))
        | {"other": np.linspace(-0.4, 0.5, 12, dtype=np.float32)},
    )


@onnx_graph(axes={"x": {"batch": BATCH}})
def left_weights() -> onnx.ModelProto:
    """Products with the weight on the left, and a Gemm with both sides transposed."""
    rng = np.random.default_rng(2)
    return model(
        [
            helper.make_node("MatMul", ["w1", "x"], ["a"], name="first"),
            helper.make_node("Add", ["a", "b1"], ["b"], name="add"),
            helper.make_node("Relu", ["b"], ["c"], name="relu"),
            helper.make_node("MatMul", ["w2", "c"], ["d"], name="second"),
            helper.make_node("Relu", ["d"], ["e"], name="relu2"),
            helper.make_node("ReduceMean", ["e", "last"], ["f"], name="mean", keepdims=0),
            helper.make_node("Transpose", ["f"], ["g"], name="turn", perm=[1, 0]),
            helper.make_node("Gemm", ["g", "w3", "b3"], ["h"], name="third", transA=1, transB=1, alpha=0.7),
            helper.make_node("Relu", ["h"], ["i"], name="relu3"),
            helper.make_node("Gemm", ["i", "w4"], ["y"], name="head"),
        ],
        [value("x", ["batch", 10, 9])],
        [value("y", ["batch", 5])],
        {
            "w1": _weights(rng, 20, 10),
            "b1": rng.standard_normal((20, 1)).astype(np.float32),
            "w2": _weights(rng, 28, 20),
            "last": np.array([2]),
            "w3": _weights(rng, 36, 28),
            "b3": rng.standard_normal(36).astype(np.float32),
            "w4": _weights(rng, 5, 36).T.copy(),
        },
        opset=18,
    )


@onnx_graph(axes={"x": {"batch": BATCH}})
def fused_norms() -> onnx.ModelProto:
    """GroupNormalization and MeanVarianceNormalization as operators, and a local response norm."""
    names = ("first", "second", "third", "last")
    shapes = {"first": (12, 3, 3, 3), "second": (20, 12, 3, 3), "third": (16, 20, 3, 3), "last": (5, 16, 3, 3)}
    nodes = [
        _conv("first", "x", "a"),
        helper.make_node("GroupNormalization", ["a", "scale", "shift"], ["b"], name="groups", num_groups=4),
        _conv("second", "b", "c"),
        helper.make_node("MeanVarianceNormalization", ["c"], ["d"], name="channels", axes=[1, 2, 3]),
        _conv("third", "d", "e"),
        helper.make_node("LRN", ["e"], ["f"], name="neighbours", size=3),
        _conv("last", "f", "y"),
    ]
    weights = _conv_weights(**{name: shapes[name] for name in names})
    rng = np.random.default_rng(5)
    return model(
        nodes,
        IMAGES,
        SCORES,
        weights
        | {
            "scale": rng.uniform(0.5, 1.5, 12).astype(np.float32),
            "shift": rng.standard_normal(12).astype(np.float32),
        },
        opset=21,
    )
