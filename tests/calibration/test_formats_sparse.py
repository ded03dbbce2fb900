"""2:4 sparse weights: two of every four, along what is summed over, and the others make it good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from float_graphs import Net, cosine, images, measured, residual_net, with_fixed_batch
from format_graphs import answers, encoder, sentences, stored
from trtcompress_calibration.formats.sparse import sparsify, words
from trtcompress_calibration.formats.two_of_four import by_magnitude, damage, solved
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.rounding.round import round_weights
from trtcompress_calibration.samples import Sample
from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_engines.encodings import encodings
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import ConfigError, DataError

PROFILE = {"x": ((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))}


def two_of_four(weight: np.ndarray, axis: int) -> bool:
    fours = np.moveaxis(weight, axis, -1).reshape(-1, 4)
    return bool(np.all((fours == 0).sum(1) >= 2))


def problem(outputs: int, fours: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A weight, inputs that depend on each other, and their second moments."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(4 * fours, 4 * fours)) + 2
    x = rng.normal(size=(300, 4 * fours)) @ mixed
    return rng.normal(size=(outputs, 4 * fours)), x, x.T @ x / len(x)


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 99))
def test_two_of_four_are_zero_and_the_greatest_are_left(outputs, fours, seed):
    weight, _, moments = problem(outputs, fours, seed)
    plain = by_magnitude(weight)
    assert two_of_four(plain, 1)
    assert (np.count_nonzero(plain, axis=1) == 2 * fours).all()
    least_left = np.where(plain == 0, np.inf, np.abs(plain)).reshape(-1, 4).min(1)
    assert np.all(np.where(plain == 0, np.abs(weight), 0).reshape(-1, 4).max(1) <= least_left)
    assert two_of_four(solved(weight, moments), 1)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 30), st.integers(0, 99))
def test_what_is_left_makes_it_good(fours, seed):
    weight, x, moments = problem(8, fours, seed)
    better = solved(weight, moments)
    lost = damage(weight, better, moments)
    np.testing.assert_allclose(lost, np.square(x @ (weight - better).T).mean(0), rtol=1e-6)
    assert lost.sum() < damage(weight, by_magnitude(weight), moments).sum()


def test_equal_inputs_lose_nothing():
    """Where two inputs are always equal one weight can stand for both: nothing is lost."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(500, 8)), 2, axis=1)
    weight = rng.normal(size=(6, 16))
    better = solved(weight, x.T @ x / len(x))
    assert damage(weight, better, x.T @ x / len(x)).sum() < 1e-3 * np.square(x @ weight.T).mean(0).sum()


def test_by_default_the_sums_of_convolutions_and_products_are_sparse(tmp_path: Path):
    model = residual_net(tmp_path / "m.onnx")
    made, layers = sparsify(model, tmp_path / "s.onnx")
    held, dense = stored(made.path), stored(model.path)
    assert {layer.weight: layer.why_not for layer in layers if layer.why_not} == {
        "stem.weight": "it sums over 3, which is no multiple of 4"
    }
    assert words(layers) == "2:4 sparse: 6 of 7 layers"
    for layer in layers[1:]:
        axis = 0 if layer.weight == "logits.weight" else 1
        assert two_of_four(held[layer.weight], axis), layer
        kept = held[layer.weight] != 0
        np.testing.assert_array_equal(held[layer.weight][kept], dense[layer.weight][kept])
    np.testing.assert_array_equal(held["stem.weight"], dense["stem.weight"])
    assert (made.inputs, made.outputs) == (model.inputs, model.outputs)


def test_samples_make_it_far_better(tmp_path: Path):
    model = residual_net(tmp_path / "m.onnx")
    feed = {"x": np.concatenate([sample.inputs["x"] for sample in images(32, seed=9)])}
    exact, error = answers(model.path, feed), {}
    for name, samples in (("magnitude", None), ("solved", images(64))):
        made, layers = sparsify(model, tmp_path / f"{name}.onnx", samples=samples)
        error[name] = np.square(answers(made.path, feed) - exact).sum()
    assert error["solved"] < 0.05 * error["magnitude"]
    assert all(layer.error < 0.5 * layer.magnitude for layer in layers if not layer.why_not)
    held = stored(made.path)
    assert all(two_of_four(held[layer.weight], 1) for layer in layers[1:-1])


def test_a_model_of_a_fixed_batch_takes_samples_one_by_one(tmp_path: Path):
    model = with_fixed_batch(residual_net(tmp_path / "m.onnx"), 4)
    _, layers = sparsify(model, tmp_path / "s.onnx", samples=images(8))
    solved = [layer for layer in layers if layer.error is not None and layer.magnitude is not None]
    assert len(solved) > 4
    assert all(layer.error <= layer.magnitude for layer in solved)


def test_a_bert(tmp_path: Path):
    model = encoder(tmp_path / "m.onnx")
    samples = [Sample({name: array[i : i + 1] for name, array in sentences(64).items()}) for i in range(64)]
    made, layers = sparsify(model, tmp_path / "s.onnx", samples=samples)
    assert {layer.why_not for layer in layers} == {""}
    assert len(layers) == 13
    assert all(two_of_four(stored(made.path)[layer.weight], 0) for layer in layers)
    plain, _ = sparsify(model, tmp_path / "p.onnx")
    feed = {name: array[-8:] for name, array in sentences(72).items()}
    exact = answers(model.path, feed)
    assert cosine(exact, answers(made.path, feed)) > cosine(exact, answers(plain.path, feed))


def test_what_stays_dense_and_why(tmp_path: Path):
    net = Net()
    x = net.conv("x", "grouped", 8, 8, group=2)
    x = net.conv(x, "kept", 8, 8)
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x], "mean")], "flat")
    x = net.product("MatMul", x, "twice", 8, 8)
    net.node("MatMul", [x, "twice.weight"], "y")
    model = net.save(tmp_path / "m.onnx", {"x": (1, 8, 8, 8)}, {"y": (1, 8)})
    _, layers = sparsify(model, tmp_path / "s.onnx", skip=["*:kept"])
    assert {layer.node: layer.why_not for layer in layers} == {
        "Conv:grouped": "it is a convolution in groups",
        "Conv:kept": "skipped",
        "MatMul:twice": "its weight is read by others too",
        "MatMul:y": "its weight is read by others too",
    }
    with pytest.raises(ConfigError, match="no node with weights is called 'kep'"):
        sparsify(model, tmp_path / "s.onnx", skip=["kep"])
    with pytest.raises(DataError, match="there are no samples"):
        sparsify(model, tmp_path / "s.onnx", samples=[])


@pytest.mark.parametrize("name", ["trt-int8", "trt-fp16", "trt-fp8", "trt-bf16"])
def test_zeros_live_through_quantization_and_the_builder_takes_it(tmp_path: Path, name: str):
    made, layers = sparsify(residual_net(tmp_path / "m.onnx"), tmp_path / "s.onnx", samples=images(16))
    encoding, ranges = encodings()[name], measured(made, images(16))
    graph = quantize(made, ranges, plan_precision(made, ranges, encoding), encoding, tmp_path / "q.onnx")
    if name == "trt-int8":
        graph, _ = round_weights(made, graph, encoding, images(16), tmp_path / "r.onnx")
    held = stored(graph.path)
    ends = "_quantized" if encoding.activation else ""
    assert all(two_of_four(held[f"{layer.weight}{ends}"].astype(np.float32), 1) for layer in layers[1:-1])
    card = resolve_target("rtx-4090")
    assert backend_for(card).compile(graph, card, name, CompileOptions(profiles=PROFILE), tmp_path / "engine").built
