"""Integers of weights and biases chosen anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from float_graphs import IMAGE, Net, images, measured, residual_net, run, with_fixed_batch
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.rounding.round import Rounded, round_weights
from trtcompress_calibration.rounding.second_order import damage, round_second_order
from trtcompress_calibration.samples import Sample
from trtcompress_engines.encodings import encodings
from trtcompress_graph.errors import DataError
from trtcompress_graph.model import Model

ENCODINGS = ("cpu-int8", "cpu-int8-r7", "trt-int8")


def depthwise_net(path: Path) -> Model:
    """A depthwise convolution between two of one place each, a product with its bias behind it, and a Gemm."""
    net = Net()
    x = net.node("Relu", [net.conv("x", "a", 3, 32, 1)], "a_act")
    x = net.node("Relu", [net.conv(x, "b", 32, 32, group=32)], "b_act")
    x = net.node("Relu", [net.conv(x, "c", 32, 16, 1)], "c_act")
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x], "mean")], "flat")
    x = net.product("MatMul", x, "d", 16, 16)
    x = net.node("Relu", [net.node("Add", [x, net.constant("d.bias", net.rng.normal(size=16))], "d_bias")], "d_act")
    net.product("Gemm", x, "logits", 16, 10)
    return net.save(path, IMAGE, {"logits": ("batch", 10)})


def stored(model: Model) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(model.path).graph.initializer}


def made(
    tmp_path: Path, model: Model, name: str, samples: Sequence[Sample] = tuple(images(32)), **how: bool
) -> tuple[Model, Model, tuple[Rounded, ...]]:
    encoding = encodings()[name]
    ranges = measured(model, samples)
    nearest = quantize(model, ranges, plan_precision(model, ranges, encoding), encoding, tmp_path / f"{name}.onnx")
    out, report = round_weights(model, nearest, encoding, samples, tmp_path / f"{name}.rounded.onnx", **how)
    return nearest, out, report


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("graph", [depthwise_net, residual_net])
def test_only_integers_and_biases_change_and_layers_lose_less(tmp_path, graph, name):
    model = graph(tmp_path / "m.onnx")
    nearest, out, report = made(tmp_path, model, name)
    before, after = stored(nearest), stored(out)
    changed = {key for key in before if not np.array_equal(before[key], after[key])}
    assert before.keys() == after.keys()
    assert changed
    assert all(key.endswith("_quantized") or "bias" in key for key in changed)
    assert all(before[key].dtype == after[key].dtype for key in changed)
    for key in changed:
        if after[key].dtype == np.int8:
            limit = 63 if name == "cpu-int8-r7" and not key.startswith("b.weight") else 127
            assert np.abs(after[key].astype(int)).max() <= limit
            steps = np.abs(after[key].astype(int) - before[key])
            assert steps.max() <= 8  # a weight stays near what it was
    assert report
    assert all(layer.chosen <= layer.nearest for layer in report)
    assert sum(layer.chosen for layer in report) < 0.8 * sum(layer.nearest for layer in report)


def test_weights_whose_zero_is_elsewhere_are_rounded_alike(tmp_path):
    model = residual_net(tmp_path / "m.onnx")
    ranges, encoding = measured(model, images(16)), encodings()["cpu-int8-r7"]
    found = []
    for least in ((), (100, 16)):
        way = replace(encoding, product_convs=least)
        nearest = quantize(model, ranges, plan_precision(model, ranges, way), way, tmp_path / f"{least}.onnx")
        found.append(stored(round_weights(model, nearest, way, images(16), tmp_path / f"{least}.rounded.onnx")[0]))
    plain, shifted = found
    for name in ("a1", "b2", "stem"):
        zero = shifted[f"{name}.weight_zero_point"][0]
        assert zero == (0 if name == "stem" else -1)
        np.testing.assert_array_equal(shifted[f"{name}.weight_quantized"] - zero, plain[f"{name}.weight_quantized"])


def test_each_switch_alone(tmp_path):
    model = depthwise_net(tmp_path / "m.onnx")
    nearest, out, report = made(tmp_path, model, "cpu-int8", second_order=False)
    before, after = stored(nearest), stored(out)
    changed = [before[key].dtype for key in before if not np.array_equal(before[key], after[key])]
    assert changed
    assert np.int8 not in changed
    assert any(layer.bias for layer in report)
    nearest, out, report = made(tmp_path, model, "cpu-int8", correct_bias=False)
    before, after = stored(nearest), stored(out)
    changed = [before[key].dtype for key in before if not np.array_equal(before[key], after[key])]
    assert set(changed) == {np.dtype(np.int8)}
    assert not any(layer.bias for layer in report)


def test_corrected_biases_keep_the_means(tmp_path):
    net = Net()
    net.conv("x", "y", 3, 16)
    model = net.save(tmp_path / "m.onnx", IMAGE, {"y": ("batch", 16, 16, 16)})
    samples = [Sample({"x": sample.inputs["x"] + np.float32(3)}) for sample in images(32)]
    exact = run(model.path, samples).mean((0, 2, 3))
    nearest, out, _ = made(tmp_path, model, "cpu-int8-r7", samples, second_order=False)
    off, corrected = (np.abs(run(m.path, samples, kernels=False).mean((0, 2, 3)) - exact).max() for m in (nearest, out))
    assert corrected < 0.5 * off


def test_a_model_of_a_fixed_batch_takes_samples_one_by_one(tmp_path):
    model = with_fixed_batch(residual_net(tmp_path / "m.onnx"), 4)
    _, _, report = made(tmp_path, model, "cpu-int8", images(9))
    _, _, open_batch = made(tmp_path, residual_net(tmp_path / "open.onnx"), "cpu-int8", images(8))
    assert [layer.node for layer in report] == [layer.node for layer in open_batch]
    assert np.allclose([layer.chosen for layer in report], [layer.chosen for layer in open_batch], rtol=0.2)


def test_equal_input_gives_equal_bytes(tmp_path):
    model = residual_net(tmp_path / "m.onnx")
    assert made(tmp_path, model, "cpu-int8")[1].digest == made(tmp_path, model, "cpu-int8")[1].digest


def test_no_samples_are_refused(tmp_path):
    model = depthwise_net(tmp_path / "m.onnx")
    nearest, _, _ = made(tmp_path, model, "cpu-int8")
    with pytest.raises(DataError, match="no samples"):
        round_weights(model, nearest, encodings()["cpu-int8"], [], tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@settings(max_examples=50, deadline=None)
@given(
    systems=st.integers(1, 3),
    outputs=st.integers(1, 5),
    features=st.integers(1, 300),
    rank=st.integers(1, 40),
    limit=st.sampled_from([63, 127]),
    seed=st.integers(0, 99),
)
def test_second_order_is_never_worse_than_nearest(systems, outputs, features, rank, limit, seed):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(systems, outputs, features))
    rows = rng.normal(size=(systems, rank, features)) @ np.diag(rng.uniform(0, 3, features) ** 2)
    rows[rng.integers(systems)] *= rng.integers(2)  # a system that may have seen nothing
    moments = np.swapaxes(rows, 1, 2) @ rows / rank
    scale = np.abs(weight).max(axis=2) / limit
    chosen = round_second_order(weight, scale, moments, limit)
    nearest = np.clip(np.rint(weight / scale[..., None]), -limit, limit)
    lost, before = damage(weight, chosen, scale, moments), damage(weight, nearest, scale, moments)
    assert (lost <= before * (1 + 1e-9) + 1e-12).all()
    assert np.abs(chosen.astype(int)).max() <= limit


def test_second_order_uses_what_inputs_have_in_common():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(1, 16, 64))
    common = rng.normal(size=(400, 8)) @ rng.normal(size=(8, 64)) + 0.1 * rng.normal(size=(400, 64))
    moments = (common.T @ common / 400)[None]
    scale = np.abs(weight).max(axis=2) / 127
    nearest = np.rint(weight / scale[..., None])
    chosen = round_second_order(weight, scale, moments, 127)
    assert damage(weight, chosen, scale, moments).sum() < 0.3 * damage(weight, nearest, scale, moments).sum()
