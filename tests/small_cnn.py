"""A small convolutional network as ONNX, plain, in FP16, or with Q/DQ pairs as TensorRT and ONNX Runtime take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_cnn(
    path: Path,
    *,
    int8: bool = False,
    fp16: bool = False,
    quantized_bias: bool = False,
    batch: int | str = "batch",
    width: int = 16,
) -> Path:
    """Two convolutions with ReLU, pooling and a Gemm: `x` (batch, 3, 16, 16) to `logits` (batch, 10)."""
    builder = _Builder(np.float16 if fp16 else np.float32, width)
    tensor, channels = "x", 3
    for index in (0, 1):
        tensor = builder.conv(index, tensor, channels, int8, quantized_bias)
        channels = width
    builder.node("GlobalAveragePool", [tensor], "pooled", "pool")
    builder.node("Flatten", ["pooled"], "flat", "flatten")
    weight = builder.constant("fc.weight", builder.random(width, 10))
    bias = builder.constant("fc.bias", np.zeros(10, builder.dtype))
    builder.node("Gemm", ["flat", weight, bias], "logits", "fc")
    model = builder.model(batch)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


class _Builder:
    def __init__(self, dtype: type, width: int) -> None:
        self.dtype = dtype
        self.width = width
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def random(self, *shape: int) -> np.ndarray:
        return (self.rng.normal(size=shape) * 0.2).astype(self.dtype)

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, op: str, inputs: list[str], output: str, name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def conv(self, index: int, tensor: str, channels: int, int8: bool, quantized_bias: bool) -> str:
        weight, bias = self.random(self.width, channels, 3, 3), np.zeros(self.width, self.dtype)
        name = f"conv{index}"
        if int8:
            tensor = self.pair(tensor, f"{name}.input")
            codes = np.clip(np.round(weight / 0.01), -127, 127).astype(np.int8)
            weight_name = self.dequantize(f"{name}.weight", codes, 0.01)
        else:
            weight_name = self.constant(f"{name}.weight", weight)
        if quantized_bias:
            bias_name = self.dequantize(f"{name}.bias", bias.astype(np.int32), 0.0005)
        else:
            bias_name = self.constant(f"{name}.bias", bias)
        self.node("Conv", [tensor, weight_name, bias_name], f"{name}.out", name, pads=[1, 1, 1, 1])
        return self.node("Relu", [f"{name}.out"], f"{name}.relu", f"relu{index}")

    def pair(self, tensor: str, name: str) -> str:
        scale = self.constant(f"{name}.scale", np.array(0.03, self.dtype))
        zero = self.constant(f"{name}.zero", np.array(0, np.int8))
        self.node("QuantizeLinear", [tensor, scale, zero], f"{name}.q", f"{name}.quantize")
        return self.node("DequantizeLinear", [f"{name}.q", scale, zero], f"{name}.dq", f"{name}.dequantize")

    def dequantize(self, name: str, codes: np.ndarray, step: float) -> str:
        code = self.constant(f"{name}.codes", codes)
        scale = self.constant(f"{name}.scale", np.full(codes.shape[0], step, self.dtype))
        zero = self.constant(f"{name}.zero", np.zeros(codes.shape[0], codes.dtype))
        return self.node("DequantizeLinear", [code, scale, zero], name, f"{name}.dequantize", axis=0)

    def model(self, batch: int | str) -> onnx.ModelProto:
        kind = TensorProto.FLOAT16 if self.dtype is np.float16 else TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            "small_cnn",
            [helper.make_tensor_value_info("x", kind, [batch, 3, 16, 16])],
            [helper.make_tensor_value_info("logits", kind, [batch, 10])],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
