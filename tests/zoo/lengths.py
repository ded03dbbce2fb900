"""Graphs in which a length that can be cut is read as a number, as no exporter folds it where the batch is dynamic."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnx_models import model, value

from .entries import BATCH, onnx_graph

Nodes = list[onnx.NodeProto]
Weights = dict[str, np.ndarray]

WORDS = value("x", ["batch", 7, 10])
IMAGES = value("x", ["batch", 3, 8, 8])


def node(op: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=outputs.split()[0], **attributes)


def floats(seed: int, *shape: int, axis: int = 0) -> np.ndarray:
    """A weight that is summed over all axes but this one, or over one of two."""
    summed = np.prod(shape) / shape[axis]
    return (np.random.default_rng(seed).standard_normal(shape) * 1.3 / np.sqrt(summed)).astype(np.float32)


def number(length: str, name: str) -> Nodes:
    """A length as a float."""
    return [node("Cast", length, name, to=TensorProto.FLOAT)]


@onnx_graph(axes={"x": {"batch": BATCH}})
def scaled_scores() -> onnx.ModelProto:
    """Attention of three heads whose scores are divided by the root of the width of a head."""
    weights = {name: floats(i, 10, 24, axis=1) for i, name in enumerate(("q.w", "k.w", "v.w"))}
    weights |= {"apart": np.array([0, 0, 3, 8]), "flat": np.array([0, 0, -1]), "last": np.array(3)}
    nodes = []
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [node("MatMul", f"x {name}.w", name), node("Reshape", f"{name} apart", f"{name}.apart")]
        nodes += [node("Transpose", f"{name}.apart", f"{name}.heads", perm=perm)]
    nodes += [node("Shape", "q.heads", "shape"), node("Gather", "shape last", "width"), *number("width", "float")]
    nodes += [node("Sqrt", "float", "root"), node("MatMul", "q.heads k.heads", "s"), node("Div", "s root", "scores")]
    nodes += [node("Softmax", "scores", "shares", axis=-1), node("MatMul", "shares v.heads", "mixed")]
    nodes += [node("Transpose", "mixed", "back", perm=[0, 2, 1, 3]), node("Reshape", "back flat", "told")]
    nodes += [node("MatMul", "told out.w", "y")]
    return model(nodes, [WORDS], [value("y", ["batch", 7, 5])], weights | {"out.w": floats(3, 24, 5, axis=1)})


@onnx_graph(axes={"x": {"batch": BATCH}})
def mean_by_length() -> onnx.ModelProto:
    """The mean over the channels is their sum by their number, which is the last of the shape."""
    weights = {"a.w": floats(0, 10, 16, axis=1), "b.w": floats(1, 16, 12, axis=1), "out.w": floats(2, 12, 5, axis=1)}
    nodes = [node("MatMul", "x a.w", "a"), node("Relu", "a", "r"), node("ReduceSum", "r last", "sum", keepdims=1)]
    nodes += [
        node("Shape", "r", "shape"),
        node("Gather", "shape last", "count"),
        *number("count", "float"),
        node("Div", "sum float", "mean"),
    ]
    nodes += [node("MatMul", "r b.w", "b"), node("Add", "b mean", "moved"), node("Tanh", "moved", "t")]
    nodes += [node("MatMul", "t out.w", "y")]
    return model(nodes, [WORDS], [value("y", ["batch", 7, 5])], weights | {"last": np.array([-1])})


@onnx_graph(axes={"x": {"batch": BATCH}})
def mean_by_size() -> onnx.ModelProto:
    """The mean square of a whole map is its sum by the number of its elements, the batch's too."""
    weights = {"a.w": floats(0, 12, 3, 3, 3), "b.w": floats(1, 20, 12, 3, 3), "out.w": floats(2, 5, 20, 1, 1)}
    nodes = [node("Conv", "x a.w", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "r"), node("Mul", "r r", "square")]
    nodes += [node("ReduceSum", "square", "sum", keepdims=0), node("Size", "r", "size"), *number("size", "float")]
    nodes += [node("Div", "sum float", "mean"), node("Sqrt", "mean", "spread"), node("Div", "r spread", "even")]
    nodes += [node("Conv", "even b.w", "b", pads=[1, 1, 1, 1]), node("Relu", "b", "s"), node("Conv", "s out.w", "y")]
    return model(nodes, [IMAGES], [value("y", ["batch", 5, 8, 8])], weights)


@onnx_graph(axes={"x": {"batch": BATCH}})
def length_outputs() -> onnx.ModelProto:
    """Outputs are a shape, a size, and a length that a Reshape reads too."""
    weights = {"a.w": floats(0, 12, 3, 3, 3), "b.w": floats(1, 20, 12, 3, 3), "out.w": floats(2, 5, 20, axis=0)}
    weights |= {"batch": np.array([0]), "channels": np.array([1]), "rest": np.array([-1])}
    nodes = [node("Conv", "x a.w", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "r"), node("Shape", "r", "shape")]
    nodes += [node("Size", "r", "size"), node("Conv", "r b.w", "b", pads=[1, 1, 1, 1]), node("Shape", "b", "wide")]
    nodes += [node("Gather", "wide batch", "first"), node("Gather", "wide channels", "width")]
    nodes += [node("Concat", "first width rest", "flat", axis=0), node("Reshape", "b flat", "f")]
    nodes += [node("ReduceMax", "f last", "most", keepdims=0), node("Gemm", "most out.w", "y", transB=1)]
    told = [value("shape", [4], TensorProto.INT64), value("size", [], TensorProto.INT64)]
    told += [value("width", [1], TensorProto.INT64), value("flat", [3], TensorProto.INT64)]
    return model(nodes, [IMAGES], [value("y", ["batch", 5]), *told], weights | {"last": np.array([-1])}, opset=18)


@onnx_graph(axes={"x": {"batch": BATCH}})
def length_of_both() -> onnx.ModelProto:
    """One product of lengths is a target of a Reshape, and what is reshaped is divided by its root."""
    weights = {"a.w": floats(0, 12, 3, 3, 3), "b.w": floats(1, 768, 16, axis=1), "out.w": floats(2, 16, 5, axis=1)}
    weights |= {"first": np.array([0]), "second": np.array([1]), "places": np.array([64]), "rest": np.array([-1])}
    nodes = [node("Conv", "x a.w", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "r"), node("Shape", "r", "shape")]
    nodes += [node("Gather", "shape first", "batch"), node("Gather", "shape second", "width")]
    nodes += [node("Mul", "width places", "all"), node("Concat", "batch all", "flat", axis=0)]
    nodes += [node("Reshape", "r flat", "f"), *number("all", "float"), node("Sqrt", "float", "root")]
    nodes += [node("Div", "f root", "even"), node("MatMul", "even b.w", "b"), node("Tanh", "b", "t")]
    return model([*nodes, node("MatMul", "t out.w", "y")], [IMAGES], [value("y", ["batch", 5])], weights)


@onnx_graph(axes={"x": {"batch": BATCH}})
def length_in_a_branch() -> onnx.ModelProto:
    """The graphs inside an `If` compute with a width of the graph around them."""
    then = helper.make_graph([*number("width", "inner"), node("Sqrt", "inner", "t")], "then", [], [value("t", [1])])
    other = helper.make_graph(number("width", "e"), "else", [], [value("e", [1])])
    weights = {"a.w": floats(0, 10, 16, axis=1), "b.w": floats(1, 16, 12, axis=1), "out.w": floats(2, 12, 5, axis=1)}
    nodes = [node("MatMul", "x a.w", "a"), node("Tanh", "a", "r"), node("Shape", "r", "shape")]
    nodes += [node("Gather", "shape last", "width")]
    nodes += [node("ReduceSum", "x", "sum", keepdims=0), node("Greater", "sum zero", "positive")]
    nodes += [node("If", "positive", "by", then_branch=then, else_branch=other), node("Div", "r by", "d")]
    nodes += [node("MatMul", "d b.w", "b"), node("Relu", "b", "s"), node("MatMul", "s out.w", "y")]
    return model(
        nodes,
        [WORDS],
        [value("y", ["batch", 7, 5])],
        weights | {"zero": np.array(0, np.float32), "last": np.array([2])},
    )


@onnx_graph(axes={"x": {"batch": BATCH}})
def length_of_rows() -> onnx.ModelProto:
    """Batch and heads are one axis whose length scales what is in it: no head can go, but what is in them can."""
    weights = {"a.w": floats(0, 10, 24, axis=1), "b.w": floats(1, 6, 12, axis=1), "out.w": floats(2, 12, 5, axis=1)}
    weights |= {"apart": np.array([0, 7, 4, 6]), "rows": np.array([-1, 7, 6]), "back": np.array([-1, 4, 7, 12])}
    weights |= {"zero": np.array(0), "heads": np.array([1])}
    nodes = [node("MatMul", "x a.w", "a"), node("Reshape", "a apart", "h")]
    nodes += [node("Transpose", "h", "t", perm=[0, 2, 1, 3]), node("Reshape", "t rows", "r")]
    nodes += [node("Shape", "r", "shape"), node("Gather", "shape zero", "count"), *number("count", "float")]
    nodes += [node("Div", "r float", "even"), node("MatMul", "even b.w", "b"), node("Relu", "b", "s")]
    nodes += [node("Reshape", "s back", "u"), node("ReduceSum", "u heads", "v", keepdims=0)]
    nodes += [node("MatMul", "v out.w", "y")]
    return model(nodes, [WORDS], [value("y", ["batch", 7, 5])], weights)
