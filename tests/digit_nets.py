"""The digit classifier of the example, cut hard, with its images: what recovery has to bring back."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

EXAMPLE = Path(__file__).parents[1] / "examples" / "mnist"


@cache
def images() -> tuple[np.ndarray, np.ndarray]:
    """512 images for training and 488 for judging, [N, 1, 28, 28], and the labels of all."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        import digits
    finally:
        sys.path.remove(str(EXAMPLE))
    x, y = digits._digits()
    return np.ascontiguousarray(x[:1000], np.float32), np.asarray(y[:1000])


def write_teacher(path: Path) -> Path:
    """The trained network: `x` (batch, 1, 28, 28) to `output` (batch, 10)."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        import digits
    finally:
        sys.path.remove(str(EXAMPLE))
    net, _ = digits.model()
    return write_net(path, {name: value.detach().numpy() for name, value in net.state_dict().items()})


def write_cut(teacher: Path, path: Path, widths: tuple[int, int, int] = (6, 10, 20)) -> Path:
    """The network with its widest channels alone, by the size of their weights; nothing is made good."""
    weights = {w.name: numpy_helper.to_array(w) for w in onnx.load(teacher).graph.initializer}
    first, second, third = (
        np.sort(np.argsort(-np.square(weights[name]).reshape(len(weights[name]), -1).sum(1), kind="stable")[:width])
        for name, width in zip(("features.0.weight", "features.3.weight", "classifier.0.weight"), widths, strict=True)
    )
    flat = (second[:, None] * 49 + np.arange(49)).ravel()
    return write_net(
        path,
        {
            "features.0.weight": weights["features.0.weight"][first],
            "features.0.bias": weights["features.0.bias"][first],
            "features.3.weight": weights["features.3.weight"][second][:, first],
            "features.3.bias": weights["features.3.bias"][second],
            "classifier.0.weight": weights["classifier.0.weight"][third][:, flat],
            "classifier.0.bias": weights["classifier.0.bias"][third],
            "classifier.2.weight": weights["classifier.2.weight"][:, third],
            "classifier.2.bias": weights["classifier.2.bias"],
        },
    )


def write_net(path: Path, weights: dict[str, np.ndarray]) -> Path:
    make, steps = helper.make_node, []
    for index, tensor in ((0, "x"), (3, "pool0")):
        names = [tensor, f"features.{index}.weight", f"features.{index}.bias"]
        steps += [
            make("Conv", names, [f"conv{index}"], name=f"conv{index}", pads=[1, 1, 1, 1]),
            make("Relu", [f"conv{index}"], [f"relu{index}"], name=f"relu{index}"),
            make("MaxPool", [f"relu{index}"], [f"pool{index}"], f"pool{index}", kernel_shape=[2, 2], strides=[2, 2]),
        ]
    steps += [
        make("Flatten", ["pool3"], ["flat"], name="flatten"),
        make("Gemm", ["flat", "classifier.0.weight", "classifier.0.bias"], ["fc0"], name="fc0", transB=1),
        make("Relu", ["fc0"], ["relu5"], name="relu5"),
        make("Gemm", ["relu5", "classifier.2.weight", "classifier.2.bias"], ["output"], name="fc1", transB=1),
    ]
    graph = helper.make_graph(
        steps,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def write_images(path: Path, count: int = 512, labels: bool = False) -> Path:
    x, y = images()
    np.savez(path, x=x[:count], **({"labels": y[:count]} if labels else {}))
    return path


def top1(model: Path) -> float:
    """On the images that no training sees."""
    from small_builds import answers

    x, y = images()
    return float((answers(model, x=x[512:]).argmax(1) == y[512:]).mean())
