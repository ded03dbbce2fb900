"""Q/DQ and FP16 for TensorRT: built by TensorRT for RTX, with no GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from assets import asset
from float_graphs import IMAGE, Net, cosine, images, lines, measured, residual_net, run
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_engines.encodings import encodings
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.simplify import simplify
from trtcompress_graph.target import Engine

INT8, FP16 = encodings()["trt-int8"], encodings()["trt-fp16"]
PROFILE = {"x": ((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))}


def built(graph: Model, profiles: dict[str, tuple[tuple[int, ...], ...]]) -> Engine:
    card = resolve_target("rtx-4090")
    options = CompileOptions(profiles=profiles)  # type: ignore[arg-type]
    return backend_for(card).compile(graph, card, "trt", options, graph.path.parent / "engine")


def written(model: Model, out: Path, samples: list, encoding=INT8) -> Model:
    ranges = measured(model, samples)
    return quantize(model, ranges, plan_precision(model, ranges, encoding), encoding, out)


def pairs(path: Path) -> dict[str, list[str]]:
    """Operator kinds that read each dequantized activation, by the tensor's name."""
    graph = onnx.load(path).graph
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    constants = {tensor.name for tensor in graph.initializer}
    restored = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] not in constants]
    return {n.output[0].removesuffix("_dequantized"): sorted(readers[n.output[0]]) for n in restored}


def test_a_residual_net_fuses_whole(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    quantized = written(model, tmp_path / "int8.onnx", images(16))
    assert pairs(quantized.path) == {
        "x": ["Conv"],
        "pool": ["Add", "Conv"],
        "a1_relu": ["Conv"],
        "a_relu": ["Conv", "Conv"],
        "b1_relu": ["Conv"],
        "b0": ["Add"],
        "flat": ["Gemm"],
    }
    assert built(quantized, PROFILE).details["int8_nodes"] == "7 of 7 convolutions and products"
    samples = images(8, seed=2)
    assert cosine(run(quantized.path, samples, kernels=False), run(model.path, samples)) > 0.995


def test_s8_symmetric_with_no_quantized_bias(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    quantized = written(model, tmp_path / "int8.onnx", images(4))
    assert (quantized.inputs, quantized.outputs) == (model.inputs, model.outputs)
    held = {t.name: numpy_helper.to_array(t) for t in onnx.load(quantized.path).graph.initializer}
    assert all(v.dtype == np.int8 and not v.any() for name, v in held.items() if name.endswith("zero_point"))
    assert held["stem.bias"].dtype == np.float16
    assert held["stem.weight_scale"].shape == (16,)
    assert not any(name.endswith("bias_quantized") for name in held)


def test_weights_of_every_kind_are_quantized_by_output_channel(tmp_path: Path) -> None:
    net = Net()
    x = net.node("Relu", [net.conv("x", "grouped", 3, 6, group=3)], "r0")
    up = [net.constant("up.weight", net.rng.normal(size=(6, 5, 2, 2))), net.constant("up.bias", np.zeros(5))]
    x = net.node("Relu", [net.node("ConvTranspose", [x, *up], "up", strides=[2, 2])], "r1")
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x], "mean")], "flat")
    x = net.product("MatMul", x, "product", 5, 7)
    transposed = [net.constant("t.weight", net.rng.normal(size=(9, 7))), net.constant("t.bias", np.ones(9))]
    x = net.node("Gemm", [x, *transposed], "out", transB=1)
    model = net.save(tmp_path / "net.onnx", IMAGE, {x: ("batch", 9)})
    quantized = written(model, tmp_path / "int8.onnx", images(8))
    graph = onnx.load(quantized.path).graph
    axes = {n.output[0]: n.attribute[0].i for n in graph.node if n.op_type == "DequantizeLinear" and n.attribute}
    names = ("grouped", "up", "product", "t")
    assert [axes[f"{name}.weight_dequantized"] for name in names] == [0, 1, 1, 0]
    sizes = {t.name: list(t.dims) for t in graph.initializer}
    assert [sizes[f"{name}.weight_scale"] for name in names] == [[6], [5], [7], [9]]
    assert built(quantized, PROFILE).built
    samples = images(4, seed=2)
    assert cosine(run(quantized.path, samples, kernels=False), run(model.path, samples)) > 0.99


def test_concat_and_what_else_reads_its_inputs_share_a_scale(tmp_path: Path) -> None:
    net = Net()
    a, b = net.node("Relu", [net.conv("x", "a", 3, 8)], "ra"), net.conv("x", "b", 3, 8)
    joined = net.node("Concat", [a, net.node("Mul", [b, net.constant("big", 9.0)], "mul")], "joined", axis=1)
    outputs = {net.conv(joined, "c", 16, 4): ("batch", 4, 16, 16), net.conv(a, "d", 8, 4): ("batch", 4, 16, 16)}
    model = net.save(tmp_path / "net.onnx", IMAGE, outputs)
    quantized = written(model, tmp_path / "int8.onnx", images(4))
    scales = {t.name: numpy_helper.to_array(t) for t in onnx.load(quantized.path).graph.initializer}
    assert scales["ra_scale"] == scales["joined_scale"]
    assert "mul_scale" not in scales
    assert built(quantized, PROFILE).details["int8_nodes"] == "4 of 4 convolutions and products"


DET = ("det", (3, 96, 160), ((1, 3, 64, 64), (1, 3, 96, 160), (2, 3, 320, 320)))
REC = ("rec", (3, 48, 160), ((1, 3, 48, 32), (1, 3, 48, 160), (4, 3, 48, 320)))
CLS = ("cls", (3, 48, 192), ((1, 3, 48, 192), (1, 3, 48, 192), (8, 3, 48, 192)))


@pytest.mark.parametrize(
    ("name", "shape", "shapes", "encoding"),
    [(*DET, INT8), (*REC, INT8), (*REC, FP16), (*CLS, INT8)],
    ids=["det-int8", "rec-int8", "rec-fp16", "cls-int8"],
)
def test_text_models_are_never_refused(tmp_path: Path, name: str, shape: tuple, shapes: tuple, encoding) -> None:
    model = simplify(read_model(asset("rapidocr-onnxruntime", f"{name}_infer.onnx")), tmp_path / "model.onnx")
    samples = lines(4, shape)
    graph = written(model, tmp_path / "graph.onnx", samples, encoding)
    assert built(graph, {"x": shapes}).built
    found, expected = run(graph.path, samples, kernels=False), run(model.path, samples)
    assert cosine(found, expected) > (0.9999 if encoding is FP16 else 0.98)
