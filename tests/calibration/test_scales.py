"""Scales, zero points and integers equal what ONNX specifies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from trtcompress_calibration.scales import activation_scale, joint, quantize, storable
from trtcompress_calibration.weights import least_scale_for, quantize_bias, quantize_weight
from trtcompress_engines.encodings import encodings
from trtcompress_graph.errors import UsageError
from trtcompress_graph.ranges import TensorRange

CPU, TRT = encodings()["cpu-int8"], encodings()["trt-int8"]
numbers = st.floats(-1e4, 1e4, width=32)
steps = st.floats(2.0**-12, 1024, width=32)


def held(low: float, high: float, threshold: float) -> TensorRange:
    return TensorRange(low, high, threshold, 0.0)


def test_a_rectified_tensor_has_zero_point_zero() -> None:
    scale = activation_scale(held(0.0, 6.0, 5.1), CPU)
    assert (scale.zero_point, scale.scale) == (0, np.float32(5.1 / 255))
    assert scale.zero_point.dtype == np.uint8


def test_symmetric_puts_the_threshold_on_127() -> None:
    scale = activation_scale(held(-3.0, 8.0, 4.0), TRT)
    assert scale.zero_point == 0
    assert scale.zero_point.dtype == np.int8
    assert scale.scale == np.float32(np.float16(4.0 / 127))


def test_clipped_on_both_sides() -> None:
    scale = activation_scale(held(-10.0, 10.0, 5.0), CPU)
    assert scale.scale == np.float32(10 / 255)
    assert scale.zero_point in (127, 128)


def test_a_tensor_above_zero_still_holds_zero() -> None:
    scale = activation_scale(held(2.0, 4.0, 4.0), CPU)
    assert (scale.zero_point, scale.scale) == (0, np.float32(4 / 255))


@pytest.mark.parametrize("encoding", [CPU, TRT])
def test_a_tensor_of_zeros_has_a_scale(encoding) -> None:
    scale = activation_scale(held(0.0, 0.0, 0.0), encoding)
    assert (scale.scale, scale.zero_point) == (1, 0)


@given(st.tuples(numbers, numbers), steps)
def test_zero_is_exact_and_the_range_is_covered(ends: tuple[float, float], threshold: float) -> None:
    low, high = sorted(ends)
    scale = activation_scale(held(low, high, threshold), CPU)
    top = (255 - int(scale.zero_point)) * float(scale.scale)
    bottom = -int(scale.zero_point) * float(scale.scale)
    half = 0.5001 * float(scale.scale)
    assert top >= min(high, threshold) - half
    assert bottom <= max(low, -threshold) + half


@given(st.lists(numbers, min_size=1, max_size=40), steps)
def test_quantize_is_quantizelinear(values: list[float], scale: float) -> None:
    x, step = np.asarray(values, np.float32), np.float32(scale)
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    graph = helper.make_graph(
        [node],
        "q",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("z", TensorProto.INT8, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.INT8, [None])],
    )
    specified = ReferenceEvaluator(helper.make_model(graph)).run(None, {"x": x, "s": step, "z": np.int8(0)})[0]
    ours = quantize(x, np.asarray([step]), None, 127)
    np.testing.assert_array_equal(ours, np.maximum(specified, -127))


def test_half_steps_round_to_even() -> None:
    ours = quantize(np.asarray([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), np.ones(1, np.float32), None, 127)
    assert ours.tolist() == [0, 2, 2, 0, -2]


@given(st.floats(2.0**-30, 60000, width=32))
def test_a_float16_scale_is_a_float16_number_and_never_far_below(scale: float) -> None:
    stored = float(storable(np.asarray([scale], np.float32), "float16")[0])
    assert stored == float(np.float16(stored))
    assert stored > 0
    assert stored >= np.float32(scale) * (1 - 2.0**-11)


def test_joint_is_wide_enough_for_each() -> None:
    both = joint([TensorRange(-1, 2, 1.5, 0.1), TensorRange(0, 9, 4.0, 0.2), TensorRange(-3, 0, None, 0.0)])
    assert (both.min, both.max, both.threshold) == (-3, 9, 4.0)


@pytest.mark.parametrize(("bits", "limit"), [(8, 127), (7, 63)])
def test_each_channel_fills_its_range(bits: int, limit: int) -> None:
    weight = np.random.default_rng(0).normal(size=(6, 4, 3, 3)).astype(np.float32) * np.arange(1, 7).reshape(
        -1, 1, 1, 1
    )
    made = quantize_weight(weight.astype(np.float32), 0, bits, "float32")
    assert np.abs(made.values).max(axis=(1, 2, 3)).tolist() == [limit] * 6
    restored = made.values * made.scale.reshape(-1, 1, 1, 1)
    assert (np.abs(restored - weight) <= made.scale.reshape(-1, 1, 1, 1) * 0.501).all()


@given(st.integers(0, 1000), st.sampled_from([8, 7]), st.sampled_from([0, 1, None]))
def test_reach_by_squared_error_is_never_worse(seed: int, bits: int, axis: int | None) -> None:
    weight = (np.random.default_rng(seed).standard_t(3, size=(5, 40)) * np.logspace(-3, 3, 5)[:, None]).astype("f4")

    def lost(method: str) -> np.ndarray:
        made = quantize_weight(weight, axis, bits, "float32", method=method)
        step = made.scale if axis is None else np.expand_dims(made.scale, 1 - axis)
        error = np.square(made.values * step.astype(np.float64) - weight)
        return error.sum() if axis is None else error.sum(axis=1 - axis)

    assert (lost("mse") <= lost("minmax") * (1 + 1e-6)).all()


def test_reach_by_squared_error_leaves_an_outlier_out() -> None:
    weight = np.random.default_rng(0).normal(size=(1, 4096)).astype(np.float32)
    weight[0, 0] = 7
    made = [quantize_weight(weight, 0, 7, "float32", method=method) for method in ("minmax", "mse")]
    assert made[1].scale[0] < made[0].scale[0]
    assert made[1].values[0, 0] == 63


def test_unknown_reach_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown method 'median' for weights"):
        quantize_weight(np.ones((2, 2), np.float32), 0, 8, "float32", method="median")


def test_a_channel_of_zeros_keeps_its_bias() -> None:
    weight = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    weight[1] = 0
    bias, step = np.asarray([0.3, -0.7, 1e3], np.float32), np.float32(0.02)
    made = quantize_weight(weight, 0, 8, "float32", least_scale_for(bias, step))
    integers, scale = quantize_bias(bias, step, made.scale)
    assert not made.values[1].any()
    np.testing.assert_allclose(integers * scale.astype(np.float64), bias, atol=float(step) * 0.05)


def test_a_bias_beyond_int32_widens_the_scale_of_its_weights() -> None:
    weight, bias, step = np.full((2, 4), 1e-6, np.float32), np.asarray([1e5, 0.1], np.float32), np.float32(1e-3)
    made = quantize_weight(weight, 0, 8, "float32", least_scale_for(bias, step))
    integers, scale = quantize_bias(bias, step, made.scale)
    assert np.abs(integers.astype(np.int64)).max() <= 2**30 + 1
    np.testing.assert_allclose(integers * scale.astype(np.float64), bias, rtol=1e-3)
