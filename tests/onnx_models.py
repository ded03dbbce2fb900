"""Small ONNX models for tests, and the graphs that the onnx package ships, with weights filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader

from assets import asset

LIGHT = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
"""Image classifiers at opset 9."""

_FILLED = 5_000_000
"""Weights of more elements than this stay constant, so that no test waits for a fully connected layer."""


def value(name: str, shape: Sequence[int | str | None], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, NDArray[np.generic]],
    opset: int = 17,
) -> onnx.ModelProto:
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def small(opset: int = 17) -> onnx.ModelProto:
    """Convolution, ReLU and a reshape, with a dynamic batch."""
    rng = np.random.default_rng(0)
    return model(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("Reshape", ["r", "s"], ["y"], name="flatten"),
        ],
        [value("x", ["batch", 2, 4, 4])],
        [value("y", ["batch", 48])],
        {
            "w": rng.standard_normal((3, 2, 3, 3)).astype(np.float32),
            "b": np.ones(3, np.float32),
            "s": np.array([-1, 48]),
        },
        opset,
    )


def save(proto: onnx.ModelProto, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


def light(name: str) -> onnx.ModelProto:
    """One of the shipped graphs; what stands for its weights (`ConstantOfShape`) is filled with random numbers."""
    proto = onnx.load(asset("onnx", f"light/light_{name}.onnx"))
    proto.ir_version = 8  # so that initializers need not be inputs
    rng = np.random.default_rng(1)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for node in list(proto.graph.node):
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            continue
        shape = tuple(int(n) for n in shapes[node.input[0]])
        if np.prod(shape) > _FILLED:
            mean = numpy_helper.from_array(np.array([1 / shape[-1]], np.float32))
            node.attribute[0].t.CopyFrom(mean)
            continue
        spread = np.sqrt(2 / np.prod(shape[1:]))
        filled = rng.standard_normal(shape) * spread if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)
        proto.graph.initializer.append(numpy_helper.from_array(filled.astype(np.float32), node.output[0]))
        proto.graph.node.remove(node)
    return proto


def run(path: Path, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    outputs: list[NDArray[np.generic]] = ort.InferenceSession(str(path), options).run(None, dict(feeds))
    return outputs


def difference(expected: NDArray[np.generic], given: NDArray[np.generic]) -> float:
    """Greatest difference, relative to the greatest value."""
    assert expected.shape == given.shape
    return float(np.abs(expected - given).max() / np.abs(expected).max())


class OneBatch(CalibrationDataReader):
    """What ONNX Runtime's own quantizer is calibrated on: one batch of the input `x`."""

    def __init__(self, x: NDArray[np.float32]) -> None:
        self._left = iter([{"x": x}])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._left, None)
