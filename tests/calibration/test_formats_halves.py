"""BF16: rounded to the nearest, half to even, with no ranges; and FP8 (E4M3) as Q/DQ pairs."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.numpy_helper import to_array

from float_graphs import cosine, images, measured, residual_net
from format_graphs import Table, bf16, dequantized, encoder, fp8, no_ranges, nodes, sentences, stored, written
from trtcompress_calibration.float16 import to_bfloat16
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.samples import Sample
from trtcompress_calibration.scales import to_f8
from trtcompress_engines.backends.onnxruntime import open_graph
from trtcompress_engines.encodings import encodings
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model

BF16, FP8 = encodings()["trt-bf16"], encodings()["trt-fp8"]
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def emulated(path: Path, feed: dict[str, np.ndarray], output: str = "y") -> np.ndarray:
    with open_graph(path, emulate=True) as runner:
        return runner.infer(feed)[output]


@given(st.lists(floats, min_size=1, max_size=20))
def test_bf16_by_the_bits(values):
    held = np.array(values, np.float32)
    found = to_bfloat16(held).astype(np.float32)
    fits = np.abs(held) < 3.38e38
    np.testing.assert_array_equal(found[fits], bf16(held)[fits])
    assert np.isfinite(found).all()


@given(st.lists(st.floats(-600, 600, width=32), min_size=1, max_size=20))
def test_fp8_is_the_nearest_of_all_its_numbers(values):
    held = np.array(values, np.float32)
    np.testing.assert_array_equal(to_f8(held).astype(np.float32), fp8(held))


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40))
def test_every_node_is_rounded(count, cin, cout):
    net = Table()
    net.node("Relu", [net.product("Gemm", "x", "g", cin, cout)], "y")
    x = np.random.default_rng(cin).normal(size=(count, cin)).astype(np.float32)
    with TemporaryDirectory() as folder:
        made = written(
            net.write(Path(folder) / "m.onnx", {"x": ("batch", cin)}, {"y": 2}), BF16, Path(folder) / "q.onnx"
        )
        found = emulated(made.path, {"x": x})
        exact = bf16(x).astype(np.float64) @ bf16(net.constants["g.weight"]) + bf16(net.constants["g.bias"])
        np.testing.assert_allclose(found, np.maximum(exact, 0), rtol=2**-8, atol=1e-5)
        np.testing.assert_array_equal(found, bf16(found))
        held = {t.name: t.data_type for t in onnx.load(made.path).graph.initializer}
        assert held == {"g.weight": TensorProto.BFLOAT16, "g.bias": TensorProto.BFLOAT16}


def test_a_bert_in_bf16(tmp_path: Path):
    model = encoder(tmp_path / "m.onnx")
    made = written(model, BF16, tmp_path / "q.onnx")
    assert cosine(answers_of(model), emulated(made.path, sentences())) > 0.9999
    assert made.path.stat().st_size < 0.55 * model.path.stat().st_size
    plan = {n.node: n for n in plan_precision(model, no_ranges(model), BF16).nodes}
    assert plan["Mul:hidden"].reason == "it is computed from integers, which beyond 256 are not exact in BF16"
    assert {n.precision for n in plan.values() if n.op in ("MatMul", "LayerNormalization", "Softmax")} == {"bfloat16"}


def answers_of(model: Model) -> np.ndarray:
    with open_graph(model.path) as runner:
        return runner.infer(sentences())["y"]


def test_positions_and_their_sines_stay_exact(tmp_path: Path):
    """Beyond 256 BF16 holds every second whole number only: a rotary embedding would turn by a radian too much."""
    net = Table()
    net.node("Cast", ["ids"], "p", to=TensorProto.FLOAT)
    sine = net.node("Sin", [net.node("Mul", ["p", net.constant("f", 0.7)], "angle")], "sine")
    net.node("Mul", ["x", sine], "y")
    model = net.write(tmp_path / "m.onnx", {"x": (4,), "ids": (4,)}, {"y": 1})
    made = written(model, BF16, tmp_path / "q.onnx")
    ids = np.array([255, 257, 301, 1001])
    found = emulated(made.path, {"x": np.ones(4, np.float32), "ids": ids})
    np.testing.assert_allclose(found, np.sin(np.float32(0.7) * ids.astype(np.float32)), atol=2**-8)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory) -> tuple[Model, Model, list[Sample], Model]:
    folder = tmp_path_factory.mktemp("fp8")
    model, samples = residual_net(folder / "m.onnx"), images(16)
    ranges = measured(model, samples)
    plan = plan_precision(model, ranges, FP8)
    return model, read_model(quantize(model, ranges, plan, FP8, folder / "q.onnx").path), samples, plan


def test_fp8_pairs_are_on_what_the_kernels_read(quantized):
    _, made, _, plan = quantized
    assert {n.op for n in plan.nodes if n.precision == "float8"} == {"Conv", "Gemm"}
    assert {n.reason for n in plan.nodes if n.op == "Relu"} == {"no FP8 kernel for Relu"}
    held = stored(made.path)
    scales = [held[node.input[1]] for node in nodes(made.path, "QuantizeLinear")]
    assert len(scales) == len({node.input[0] for node in nodes(made.path, "QuantizeLinear")})
    assert all(scale.shape == () for scale in scales)
    assert [scale.dtype for scale in scales] == [np.float32] + [np.float16] * (len(scales) - 1)  # the input is float32
    assert held["x_zero_point"].dtype == held["stem.weight_quantized"].dtype == ml_dtypes.float8_e4m3fn


def test_fp8_holds_the_greatest_that_was_seen_on_448(quantized):
    model, made, samples, _ = quantized
    held = stored(made.path)
    greatest = max(float(np.abs(sample.inputs["x"]).max()) for sample in samples)
    assert float(held["x_scale"]) == np.float16(greatest / 448)
    weight, scale = held["stem.weight_quantized"].astype(np.float32), held["stem.weight_scale"].astype(np.float32)
    assert scale.shape == (16,)
    original = stored(model.path)["stem.weight"]
    np.testing.assert_array_equal(weight, fp8(original / scale.reshape(-1, 1, 1, 1)))
    assert np.abs(weight).max(axis=(1, 2, 3)).min() > 440


def test_fp8_answers_alike_and_is_smaller(quantized):
    model, made, samples, _ = quantized
    feed = {"x": np.concatenate([sample.inputs["x"] for sample in samples])}
    with open_graph(model.path) as runner:
        exact = runner.infer(feed)["logits"]
    assert cosine(exact, emulated(made.path, feed, "logits")) > 0.999
    assert made.path.stat().st_size < 0.6 * model.path.stat().st_size


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40), st.floats(0.5, 100))
def test_fp8_products_equal_the_emulation(count, cin, cout, size):
    """What goes in beyond the range that was seen saturates."""
    net = Table()
    net.product("MatMul", "x", "y", cin, cout)
    rng = np.random.default_rng(cin)
    x = (rng.normal(size=(count, cin)) * size).astype(np.float32)
    with TemporaryDirectory() as folder:
        model = net.write(Path(folder) / "m.onnx", {"x": ("batch", cin)}, {"y": 2})
        ranges = measured(model, [Sample({"x": row[None]}) for row in x])
        made = quantize(model, ranges, plan_precision(model, ranges, FP8), FP8, Path(folder) / "q.onnx")
        held, (pair,) = stored(made.path), nodes(made.path, "QuantizeLinear")
        step = held[pair.input[1]].astype(np.float32)
        read = np.float16(fp8(3 * x / step) * step)
        restored = next(n for n in nodes(made.path, "DequantizeLinear") if n.input[0] == "y.weight_quantized")
        exact = read.astype(np.float64) @ np.float16(dequantized(restored, held)).astype(np.float64)
        np.testing.assert_allclose(
            emulated(made.path, {"x": 3 * x}), exact, rtol=2**-9, atol=2**-9 * np.abs(exact).max() + 1e-6
        )


def test_arrays_of_the_file_are_read_as_they_were_written(tmp_path: Path):

    net = Table()
    net.product("MatMul", "x", "y", 8, 8)
    made = written(net.write(tmp_path / "m.onnx", {"x": ("batch", 8)}, {"y": 2}), BF16, tmp_path / "q.onnx")
    (weight,) = onnx.load(made.path).graph.initializer
    np.testing.assert_array_equal(to_array(weight).astype(np.float32), bf16(net.constants["y.weight"]))
