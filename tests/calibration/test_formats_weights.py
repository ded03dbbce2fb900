"""Weights alone as integers, and embedding tables: equal to what the operators' specifications say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from format_graphs import (
    Table,
    answers,
    attribute,
    bf16,
    dequantized,
    encoder,
    nbits_weight,
    no_ranges,
    nodes,
    pairs,
    recommender,
    sentences,
    stored,
    written,
)
from trtcompress_calibration.formats.blocks import packed, quantize_blocks
from trtcompress_calibration.precision import plan_precision
from trtcompress_engines.backends.onnxruntime import open_graph
from trtcompress_engines.encodings import encodings, with_weights
from trtcompress_graph.errors import ModelError, UsageError

CPU4, CPU8 = encodings()["cpu-weight-int4"], encodings()["cpu-weight-int8"]
TRT4, TRT8 = encodings()["trt-weight-int4"], encodings()["trt-weight-int8"]
TABLES = encodings()["cpu-tables"]


def emulated(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    """As it is written: ONNX Runtime would round activations to INT8 where it finds a DequantizeLinear of INT4."""
    with open_graph(path, emulate=True) as runner:
        return runner.infer(feed)["y"]


def matrix(rows: int, columns: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, columns)) * rng.choice([1e-3, 1, 30], (rows, 1))).astype(np.float32)


blocks = st.sampled_from([0, 16, 32, 64, 128])
bits = st.sampled_from([4, 8])


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 150), blocks, bits, st.booleans(), st.integers(0, 99))
def test_integers_are_the_nearest_on_their_steps(rows, columns, block, width, symmetric, seed):
    weight = matrix(rows, columns, seed)
    made = quantize_blocks(weight, width, block, symmetric=symmetric)
    assert made.codes.max() < 2**width
    assert (made.scale > 0).all()
    steps = np.repeat(made.scale, made.block, axis=1)[:, :columns]
    reach = np.repeat(made.zero_point.astype(int), made.block, axis=1)[:, :columns]
    least, most = ((1 if symmetric else 0) - reach) * steps, (2**width - 1 - reach) * steps
    held = np.clip(weight, least, most)
    assert np.all(np.abs(made.values - held) <= 0.5001 * steps)
    if width == 8:
        assert np.all(np.abs(made.values - weight) <= 1.0001 * steps)
    if symmetric:
        assert (made.zero_point == 2 ** (width - 1)).all()
        np.testing.assert_allclose(made.values, made.signed * steps, rtol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 90), blocks, st.booleans(), st.integers(0, 99))
def test_four_bits_never_err_more_than_with_the_whole_reach(rows, columns, block, symmetric, seed):
    weight = matrix(rows, columns, seed)
    made = quantize_blocks(weight, 4, block, symmetric=symmetric)
    split = np.pad(weight, ((0, 0), (0, -columns % made.block))).reshape(rows, -1, made.block)
    if symmetric:
        scale, zero, least = np.abs(split).max(-1) / np.float32(7), 8, 1
    else:
        low, high = np.minimum(split.min(-1), 0), np.maximum(split.max(-1), 0)
        scale = (high - low) / np.float32(15)
        zero, least = np.clip(np.rint(-low / np.where(scale > 0, scale, 1)), 0, 15)[..., None], 0
    scale = np.where(scale > 0, scale, 1)[..., None]
    plain = (np.clip(np.rint(split / scale) + zero, least, 15) - zero) * scale
    mine = np.square(np.pad(made.values - weight, ((0, 0), (0, -columns % made.block)))).reshape(split.shape).sum(-1)
    assert np.all(mine <= np.square(plain - split).sum(-1) * 1.001 + 1e-12)


@given(st.integers(1, 4), st.integers(1, 9))
def test_four_bits_lie_two_in_a_byte_the_first_in_the_low_half(rows, columns):
    codes = np.random.default_rng(columns).integers(0, 16, (rows, columns)).astype(np.uint8)
    halves = packed(codes, 4)
    assert halves.shape == (rows, -(-columns // 2))
    np.testing.assert_array_equal(np.stack([halves & 15, halves >> 4], -1).reshape(rows, -1)[:, :columns], codes)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["MatMul", "Gemm"]),
    st.integers(1, 4),
    st.integers(20, 200),
    st.integers(1, 40),
    st.sampled_from([16, 32, 64, 128]),
    st.booleans(),
    bits,
)
def test_onnxruntime_computes_what_the_specification_says(op, count, cin, cout, block, symmetric, width):
    net = Table()
    net.product(op, "x", "y", cin, cout)
    feed = {"x": np.random.default_rng(1).normal(size=(count, cin)).astype(np.float32)}
    with TemporaryDirectory() as folder:
        model = net.write(Path(folder) / "m.onnx", {"x": ("batch", cin)}, {"y": 2})
        encoding = with_weights(CPU4 if width == 4 else CPU8, block=block, symmetric=symmetric)
        made = written(model, encoding, Path(folder) / "q.onnx")
        found = nodes(made.path, "MatMulNBits")
        assert (made.inputs, [spec.name for spec in made.outputs]) == (model.inputs, ["y"])
        if not found:  # so few features that scales and the filled block would take as much as the floats
            assert cin < 32
            return
        expected = feed["x"].astype(np.float64) @ nbits_weight(found[0], stored(made.path))
        expected = expected + net.constants["y.bias"] if op == "Gemm" else expected
        assert (attribute(found[0], "accuracy_level"), found[0].name) == (1, f"{op}:y")
        np.testing.assert_allclose(answers(made.path, feed), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.booleans(), st.integers(20, 300), st.integers(1, 40), st.sampled_from([None, 32, 64, 128]), bits)
def test_tensorrts_form_is_what_onnx_specifies(turned, cin, cout, block, width):
    net = Table()
    weight = net.rng.normal(size=(cout, cin) if turned else (cin, cout))
    net.node("Gemm", ["x", net.constant("w", weight)], "y", transB=int(turned))
    feed = {"x": np.random.default_rng(1).normal(size=(3, cin)).astype(np.float32)}
    with TemporaryDirectory() as folder:
        model = net.write(Path(folder) / "m.onnx", {"x": ("batch", cin)}, {"y": 2})
        encoding = with_weights(replace(TRT4 if width == 4 else TRT8, float_type="float32"), block=block)
        made = written(model, encoding, Path(folder) / "q.onnx")
        (restored,) = nodes(made.path, "DequantizeLinear")
        held = stored(made.path)
        assert attribute(restored, "block_size") == (encoding.block if cin % (encoding.block or cin) == 0 else 0)
        back = dequantized(restored, held)
        np.testing.assert_allclose(
            emulated(made.path, feed), feed["x"] @ (back.T if turned else back), rtol=1e-4, atol=1e-4
        )
        assert len(restored.input) == 2  # no zero points: TensorRT refuses others than 0


def test_a_scale_in_bf16_is_the_one_that_integers_were_chosen_for(tmp_path: Path):
    net = Table()
    net.product("MatMul", "x", "y", 64, 16)
    made = written(net.write(tmp_path / "m.onnx", {"x": ("batch", 64)}, {"y": 2}), TRT4, tmp_path / "q.onnx")
    (restored,) = nodes(made.path, "DequantizeLinear")
    back = dequantized(restored, stored(made.path))
    weight = net.constants["y.weight"]
    scale = stored(made.path)["y.weight_scale"].astype(np.float32)
    assert np.all(np.abs(back - np.clip(weight, -7 * scale, 7 * scale)) <= 0.5001 * scale)
    x = np.random.default_rng(2).normal(size=(4, 64)).astype(np.float32)
    found = emulated(made.path, {"x": x})
    expected = bf16(x) @ bf16(back)
    np.testing.assert_allclose(found, bf16(expected), rtol=2**-7, atol=1e-5)
    assert np.mean(found == bf16(expected)) > 0.9  # the order of the sum moves a few to the next number


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 60), st.integers(2, 40), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.booleans())
def test_rows_that_are_looked_up_equal_the_emulation(rows, width, shape, symmetric):
    net = Table()
    net.lookup(net.table("t", rows, width), "ids", "y")
    ids = np.random.default_rng(0).integers(-rows, rows, shape)
    with TemporaryDirectory() as folder:
        model = net.write(
            Path(folder) / "m.onnx", {"ids": tuple(f"d{i}" for i in range(len(shape)))}, {"y": len(shape) + 1}
        )
        made = written(model, replace(TABLES, symmetric=symmetric), Path(folder) / "q.onnx")
        held = stored(made.path)
        assert held["t_quantized"].dtype == (np.int8 if symmetric else np.uint8)
        assert set(held) == {"t_quantized", "t_scale"} | (set() if symmetric else {"t_zero_point"})
        codes = held["t_quantized"].astype(np.int32) - held.get("t_zero_point", np.int32(0))
        back = codes.astype(np.float32) * held["t_scale"]
        np.testing.assert_array_equal(answers(made.path, {"ids": ids}), back[ids])
        reach = np.abs(net.constants["t"]).max(1, keepdims=True)
        assert np.all(np.abs(back - net.constants["t"]) <= reach / 120)


@pytest.mark.parametrize(
    ("name", "least"), [("cpu-tables", 0.99999), ("cpu-weight-int8", 0.9999), ("cpu-weight-int4", 0.99)]
)
def test_a_recommender_shrinks_and_answers_alike(tmp_path: Path, name: str, least: float):
    model = recommender(tmp_path / "m.onnx")
    made = written(model, encodings()[name], tmp_path / "q.onnx")
    scores, found = answers(model.path, pairs()), answers(made.path, pairs())
    assert np.corrcoef(scores.ravel(), found.ravel())[0, 1] > least
    assert made.path.stat().st_size < 0.45 * model.path.stat().st_size
    looked = [n.input[0] for n in nodes(made.path, "Gather") if n.input[0].endswith("_quantized")]
    assert looked == ["gmf.user_quantized", "gmf.item_quantized", "mlp.user_quantized", "mlp.item_quantized"]
    assert not {"gmf.user", "mlp.item"} & set(stored(made.path))


@pytest.mark.parametrize(
    ("encoding", "least", "share"), [(CPU8, 0.9999, 0.36), (CPU4, 0.98, 0.3), (TRT8, 0.999, 0.33), (TRT4, 0.97, 0.27)]
)
def test_a_bert_shrinks_and_answers_alike(tmp_path: Path, encoding, least: float, share: float):
    model = encoder(tmp_path / "m.onnx")
    made = written(model, encoding, tmp_path / "q.onnx")
    with open_graph(made.path, emulate=encoding.float_type != "float32") as runner:
        found = runner.infer(sentences())["y"]
    assert np.corrcoef(answers(model.path, sentences()).ravel(), found.ravel())[0, 1] > least
    assert made.path.stat().st_size < share * model.path.stat().st_size
    plan = plan_precision(model, no_ranges(model), encoding)
    assert plan.quantized == 15
    assert {n.precision for n in plan.nodes if n.op == "Gather"} == {"weight-int8"}


def test_activations_in_int8_are_coarser_and_asked_for(tmp_path: Path):
    model = encoder(tmp_path / "m.onnx")
    exact = answers(written(model, CPU4, tmp_path / "1.onnx").path, sentences())
    fast = written(model, with_weights(CPU4, accuracy_level=4), tmp_path / "4.onnx")
    assert {attribute(node, "accuracy_level") for node in nodes(fast.path, "MatMulNBits")} == {4}
    assert 0 < np.abs(answers(fast.path, sentences()) - exact).max() < 0.3 * np.abs(exact).max()


def test_a_weight_that_is_read_twice_is_stored_once(tmp_path: Path):
    net = Table()
    net.product("MatMul", "x", "a", 64, 64)
    net.node("MatMul", ["a", "a.weight"], "y")
    made = written(net.write(tmp_path / "m.onnx", {"x": ("batch", 64)}, {"y": 2}), CPU8, tmp_path / "q.onnx")
    first, second = nodes(made.path, "MatMulNBits")
    assert (
        list(first.input[1:])
        == list(second.input[1:])
        == ["a.weight_quantized", "a.weight_scale", "a.weight_zero_point"]
    )


def test_a_tied_table_is_looked_up_and_multiplied(tmp_path: Path):
    net = Table()
    x = net.lookup(net.table("words", 100, 32), "ids", "x_rows")
    net.node("Gemm", [x, "words"], "y", transB=1)
    model = net.write(tmp_path / "m.onnx", {"ids": ("batch",)}, {"y": 2})
    for encoding in (CPU8, CPU4, TRT8):
        made = written(model, replace(encoding, float_type="float32"), tmp_path / f"{encoding.name}.onnx")
        feed = {"ids": np.arange(0, 100, 7)}
        exact = answers(model.path, feed)
        assert np.corrcoef(exact.ravel(), answers(made.path, feed).ravel())[0, 1] > 0.98
        assert "words" not in stored(made.path)


def test_what_stays_float_and_why(tmp_path: Path):
    net = Table()
    a = net.product("MatMul", "x", "few", 4, 8)
    b = net.node("Gemm", [a, net.constant("half", np.ones((8, 40)))], "scaled", alpha=0.5)
    c = net.node("Relu", [b], "relu")
    d = net.product("MatMul", c, "kept", 40, 40)
    e = net.constant("broken", np.full((40, 40), np.nan))
    f = net.node("Add", [net.node("MatMul", [d, e], "nan"), net.node("MatMul", [d, d], "square")], "y")
    model = net.write(tmp_path / "m.onnx", {"x": (40, 4)}, {f: 2})
    plan = plan_precision(model, no_ranges(model), CPU8, skip=["MatMul:kept"])
    assert {n.node: n.reason for n in plan.nodes if n.reason} == {
        "MatMul:few": "weight 'few.weight' has 4 features only: with scales its integers would not be smaller",
        "Gemm:scaled": "alpha or beta is not 1, or it reads a transposed matrix",
        "MatMul:kept": "skipped",
        "MatMul:nan": "'broken' holds NaN or infinity",
    }
    assert plan.quantized == 0


@pytest.mark.parametrize("encoding", [CPU4, CPU8], ids=lambda e: e.name)
def test_a_factor_of_a_bias_that_is_not_there_changes_nothing(tmp_path: Path, encoding):
    net = Table()
    weights = [net.constant(name, net.rng.normal(size=(256, 256)) / 16) for name in "vw"]
    bias = net.constant("b", np.ones(256))
    a = net.node("Gemm", ["x", weights[0]], "bare", beta=0.5)
    net.node("Gemm", [a, weights[1], bias], "y", beta=0.5)
    model = net.write(tmp_path / "m.onnx", {"x": (2, 256)}, {"y": 2})
    plan = plan_precision(model, no_ranges(model), encoding)
    assert [n.precision == encoding.quantized for n in plan.nodes] == [True, False]
    made = written(model, encoding, tmp_path / "q.onnx")
    feed = {"x": np.random.default_rng(0).normal(size=(2, 256)).astype(np.float32)}
    exact, found = emulated(model.path, feed), emulated(made.path, feed)
    assert 0 < np.square(found - exact).mean() < 0.02 * np.square(exact).mean()


def test_a_quantized_graph_is_not_quantized_again(tmp_path: Path):
    made = written(encoder(tmp_path / "m.onnx"), CPU4, tmp_path / "q.onnx")
    with pytest.raises(ModelError, match="quantized already"):
        written(made, CPU8, tmp_path / "again.onnx")


def test_equal_arguments_give_equal_bytes(tmp_path: Path):
    model = recommender(tmp_path / "m.onnx")
    for encoding in (CPU4, TRT4, TABLES):
        assert (
            written(model, encoding, tmp_path / "a.onnx").digest == written(model, encoding, tmp_path / "b.onnx").digest
        )


@pytest.mark.parametrize(
    ("name", "given", "where"),
    [
        ("cpu-int8", {"block": 64}, "block"),
        ("cpu-tables", {"symmetric": True}, "symmetric"),
        ("trt-weight-int4", {"symmetric": False}, "symmetric"),
        ("trt-weight-int8", {"accuracy_level": 4}, "accuracy_level"),
    ],
)
def test_what_the_kernels_do_not_take_is_refused(name: str, given: dict, where: str):
    with pytest.raises(UsageError) as caught:
        with_weights(encodings()[name], **given)
    assert (caught.value.where, caught.value.exit_code) == (where, 2)
    assert caught.value.hint


def test_the_graph_stays_one_that_onnx_checks(tmp_path: Path):
    for encoding in (TRT4, TRT8, TABLES, CPU4):
        made = written(encoder(tmp_path / "m.onnx"), encoding, tmp_path / "q.onnx")
        onnx.checker.check_model(onnx.load(made.path), full_check=encoding is not CPU4)
