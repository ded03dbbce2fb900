"""Zeros of quantized weights: those that were meant stay, those that rounding made are trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from trtcompress.recovery.zeros import keep_zeros
from trtcompress_graph.torch_view import to_torch

CHANCE = np.random.default_rng(0)


def two_of_four(weight: np.ndarray) -> np.ndarray:
    """The two greatest of every four in a column."""
    fours = weight.reshape(-1, 4, weight.shape[1])
    order = np.argsort(np.argsort(np.abs(fours), axis=1), axis=1)
    return np.where(order >= 2, fours, 0).reshape(weight.shape)


def views(folder: Path, weight: np.ndarray, scale: float) -> tuple[torch.fx.GraphModule, torch.fx.GraphModule]:
    """`x` (batch, 16) times the weight: quantized to INT8, and in float."""
    made = []
    for name, array in (("int8", np.round(weight / scale).astype(np.int8)), ("float", weight.astype(np.float32))):
        nodes = [helper.make_node("MatMul", ["x", "read" if name == "int8" else "w"], ["y"], name="fc")]
        held = [numpy_helper.from_array(array, "w"), numpy_helper.from_array(np.float32(scale), "scale")]
        if name == "int8":
            nodes.insert(0, helper.make_node("DequantizeLinear", ["w", "scale"], ["read"], name="dequantize"))
        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", s]) for n, s in (("x", 16), ("y", 8)))
        graph = helper.make_graph(nodes, name, [x], [y], held if name == "int8" else held[:1])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(model, folder / f"{name}.onnx")
        made.append(to_torch(folder / f"{name}.onnx"))
    return made[0], made[1]


def moved(view: torch.fx.GraphModule) -> np.ndarray:
    """Where a gradient reaches the weight."""
    view(torch.ones(4, 16)).sum().backward()
    gradient = dict(view.named_parameters())["w"].grad
    assert gradient is not None
    return (gradient != 0).numpy()


def test_zeros_that_rounding_made_are_trained(tmp_path):
    weight = CHANCE.normal(size=(16, 8))
    quantized, full = views(tmp_path, weight, scale=1.5)
    assert float((dict(quantized.named_parameters())["w"] == 0).float().mean()) > 0.45
    assert keep_zeros(quantized) == 0
    assert keep_zeros(quantized, full) == 0
    assert moved(quantized).all()


def test_the_pattern_of_sparse_kernels_stays(tmp_path):
    weight = two_of_four(CHANCE.normal(size=(16, 8)) + 3)
    quantized, _ = views(tmp_path, weight, scale=0.05)
    assert keep_zeros(quantized) == 1
    assert np.array_equal(moved(quantized), weight != 0)


def test_the_float_model_tells_which_zeros_were_meant(tmp_path):
    weight = two_of_four(CHANCE.normal(size=(16, 8)))
    quantized, full = views(tmp_path, weight, scale=1.5)
    rounded = (dict(quantized.named_parameters())["w"] == 0).numpy()
    assert rounded.mean() > 0.6, "rounding made more"
    assert keep_zeros(quantized, full) == 1
    assert np.array_equal(moved(quantized), weight != 0)
