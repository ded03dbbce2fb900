"""Small ONNX models for serving, and engines around them."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from assets import asset
from trtcompress_engines.triton.datatypes import PYTHON_TYPES
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

CPU = Target("cpu", "CPU", "cpu")
RTX = Target("rtx-4090", "GeForce RTX 4090", "aot", ((8, 9),))
BATCH_8 = AxisRange(1, 4, 8)


def engine_of(graph: Model, backend: str = "onnxruntime", details: Mapping[str, str] | None = None) -> Engine:
    """The graph as an engine that is its own file."""
    target = "cpu" if backend == "onnxruntime" else "rtx-4090"
    held = {"threads": "1"} if details is None else dict(details)
    return Engine(graph.path, graph.digest, target, backend, "some-int8", graph, True, True, held)


def save(path: Path, nodes, inputs, outputs, weights: Mapping[str, np.ndarray]) -> Model:
    """Write a graph; inputs and outputs are `(name, element type, shape)`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return read_model(path)


def cnn(path: Path) -> Model:
    """`image [batch, 1, 28, 28] -> logits [batch, 10]`, as for handwritten digits."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(0, 0.3, (8, 1, 3, 3)).astype("f4"),
        "b1": rng.normal(0, 0.1, 8).astype("f4"),
        "w2": rng.normal(0, 0.1, (16, 8, 3, 3)).astype("f4"),
        "fc": rng.normal(0, 0.1, (16, 10)).astype("f4"),
        "bias": rng.normal(0, 0.1, 10).astype("f4"),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "bias"], ["logits"]),
    ]
    inputs = [("image", TensorProto.FLOAT, ["batch", 1, 28, 28])]
    return save(path, nodes, inputs, [("logits", TensorProto.FLOAT, ["batch", 10])], weights)


APART = {"image": {"images": AxisRange(1, 4, 8)}, "words": {"texts": AxisRange(1, 10, 16)}}


def towers(path: Path, axes: Mapping[str, Mapping[str, AxisRange]] = APART) -> Model:
    """`image [N, 8] -> image_vectors [N, 4]`, `words [M, 3] -> text_vectors [M, 4], lengths [M]`; a scale is shared."""
    rng = np.random.default_rng(0)
    weights = {
        "wi": rng.normal(size=(8, 4)).astype("f4"),
        "table": rng.normal(size=(20, 4)).astype("f4"),
        "scale": np.float32([3]),
        "one": np.array([1], "i8"),
    }
    nodes = [
        helper.make_node("MatMul", ["image", "wi"], ["i"]),
        helper.make_node("Mul", ["i", "scale"], ["image_vectors"]),
        helper.make_node("Gather", ["table", "words"], ["t"]),
        helper.make_node("ReduceSum", ["t", "one"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "scale"], ["text_vectors"]),
        helper.make_node("ReduceL2", ["sum", "one"], ["lengths"], keepdims=0),
    ]
    (n,), (m,) = axes["image"], axes["words"]
    inputs = [("image", TensorProto.FLOAT, [n, 8]), ("words", TensorProto.INT64, [m, 3])]
    outputs = [
        ("image_vectors", TensorProto.FLOAT, [n, 4]),
        ("text_vectors", TensorProto.FLOAT, [m, 4]),
        ("lengths", TensorProto.FLOAT, [m]),
    ]
    return save(path, nodes, inputs, outputs, weights)


VOCABULARY = 50


def encoder(path: Path) -> Model:
    """`ids, mask [batch, sequence] -> tokens [batch, sequence, 8], pooled [batch, 8]`; an id of 50 is out of range."""
    rng = np.random.default_rng(1)
    weights = {
        "table": rng.normal(0, 1, (VOCABULARY, 16)).astype("f4"),
        "w": rng.normal(0, 0.5, (16, 8)).astype("f4"),
        "last": np.array([-1], "i8"),
        "middle": np.array([1], "i8"),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Unsqueeze", ["mask", "last"], ["m"]),
        helper.make_node("Mul", ["e", "m"], ["masked"]),
        helper.make_node("MatMul", ["masked", "w"], ["t"]),
        helper.make_node("Tanh", ["t"], ["tokens"]),
        helper.make_node("ReduceMean", ["tokens", "middle"], ["pooled"], keepdims=0),
    ]
    return save(
        path,
        nodes,
        [("ids", TensorProto.INT64, ["batch", "sequence"]), ("mask", TensorProto.FLOAT, ["batch", "sequence"])],
        [("tokens", TensorProto.FLOAT, ["batch", "sequence", 8]), ("pooled", TensorProto.FLOAT, ["batch", 8])],
        weights,
    )


def scorer(path: Path) -> Model:
    """`user, item [batch] -> score [batch]`: tensors that are nothing but their batch."""
    rng = np.random.default_rng(2)
    weights = {
        "users": rng.normal(0, 1, (20, 8)).astype("f4"),
        "items": rng.normal(0, 1, (30, 8)).astype("f4"),
        "last": np.array([-1], "i8"),
    }
    nodes = [
        helper.make_node("Gather", ["users", "user"], ["u"]),
        helper.make_node("Gather", ["items", "item"], ["i"]),
        helper.make_node("Mul", ["u", "i"], ["p"]),
        helper.make_node("ReduceSum", ["p", "last"], ["score"], keepdims=0),
    ]
    inputs = [("user", TensorProto.INT64, ["batch"]), ("item", TensorProto.INT64, ["batch"])]
    return save(path, nodes, inputs, [("score", TensorProto.FLOAT, ["batch"])], weights)


def scaled(path: Path) -> Model:
    """`x [3], factor [] -> y [3], total []`: no batch, and scalars."""
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["y"]),
        helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
    ]
    inputs = [("x", TensorProto.FLOAT, [3]), ("factor", TensorProto.FLOAT, [])]
    return save(path, nodes, inputs, [("y", TensorProto.FLOAT, [3]), ("total", TensorProto.FLOAT, [])], {})


TYPES = sorted(PYTHON_TYPES)


def typed(path: Path) -> Model:
    """`in_T [batch, n] -> out_T [batch, n]` for every type T that the python backend carries."""
    element = {name: helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in TYPES}
    nodes = [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in TYPES]
    inputs = [(f"in_{name}", element[name], ["batch", "n"]) for name in TYPES]
    return save(path, nodes, inputs, [(f"out_{name}", element[name], ["batch", "n"]) for name in TYPES], {})


def reader(path: Path) -> Model:
    """PP-OCRv4's text reader, as it ships: `x [?, 3, 48, ?] -> softmax_11.tmp_0 [?, ?, 6625]`."""
    shutil.copyfile(asset("rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx"), path)
    return read_model(path)


READER_AXES = {
    "x": {
        "p2o.DynamicDimension.0": AxisRange(1, 2, 4),
        "2": AxisRange(48, 48, 48),
        "p2o.DynamicDimension.1": AxisRange(32, 96, 320),
    }
}
