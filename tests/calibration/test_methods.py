"""Range methods against slow definitions of what they compute."""

import time

import numpy as np
import pytest

from trtcompress_calibration.histogram import Histogram, rebinned, share_beyond
from trtcompress_calibration.methods import METHODS, entropy, kl_divergences, threshold
from trtcompress_graph.errors import UsageError

RNG = np.random.default_rng(7)
SHAPES = {
    "normal": RNG.standard_normal(200_000),
    "relu": np.maximum(RNG.standard_normal(200_000), 0),
    "laplace": RNG.laplace(size=100_000),
    "outlier": np.append(RNG.standard_normal(100_000), 60.0),
    "sparse": RNG.standard_normal(50),
    "levels": RNG.integers(0, 256, 100_000) / 255,
    "uniform": RNG.uniform(-2, 2, 100_000),
    "spike": np.append(np.full(1000, 0.01), 5.0),
    "constant": np.full(1000, 5.0),
    "power": np.append(RNG.standard_normal(5000), 8.0),  # amax on the edge of a bin
}


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.update(np.asarray(values, np.float32))
    return histogram


def slow_divergence(counts: np.ndarray, threshold: int, levels: int) -> float:
    """As the slides of TensorRT's calibrator tell it, bin by bin."""
    reference = counts[:threshold].astype(float)
    reference[-1] += counts[threshold:].sum()
    candidate = np.zeros(threshold)
    level = [k * levels // threshold for k in range(threshold)]
    for j in range(levels):
        members = [k for k in range(threshold) if level[k] == j and counts[k] > 0]
        for k in members:
            candidate[k] = counts[members].sum() / len(members)
    if candidate.sum() == 0:
        return np.inf
    p, q = reference / reference.sum(), candidate / candidate.sum()
    if ((p > 0) & (q == 0)).any():
        return np.inf
    return float(sum(p[k] * np.log(p[k] / q[k]) for k in range(threshold) if p[k] > 0))


@pytest.mark.parametrize("name", SHAPES)
def test_divergences_are_those_of_the_definition(name: str) -> None:
    counts = rebinned(histogram_of(SHAPES[name]), 256)
    counts[0] = counts[1]
    expected = [slow_divergence(counts, i, 16) for i in range(16, 257)]
    np.testing.assert_allclose(kl_divergences(counts, 16), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["normal", "relu", "outlier", "spike"])
def test_divergences_at_the_size_of_tensorrt(name: str) -> None:
    counts = rebinned(histogram_of(SHAPES[name]), 2048)
    counts[0] = counts[1]
    fast = kl_divergences(counts, 128)
    some = [128, 129, 500, 1000, 1777, 2047, 2048]
    np.testing.assert_allclose(fast[np.array(some) - 128], [slow_divergence(counts, i, 128) for i in some], rtol=1e-8)


def test_entropy_clips_an_outlier_and_keeps_a_uniform_range() -> None:
    assert entropy(histogram_of(SHAPES["outlier"])) < 10
    assert entropy(histogram_of(SHAPES["uniform"])) > 1.9
    assert entropy(histogram_of(SHAPES["constant"])) == 5.0


def test_entropy_never_clips_more_than_a_hundredth() -> None:
    background = np.append(np.full(8000, -0.4242), RNG.uniform(-0.4242, 2.8215, 2000))
    few = RNG.standard_normal(24)
    for values in (background, few, *SHAPES.values()):
        assert share_beyond(histogram_of(values), entropy(histogram_of(values))) <= 0.011


def test_entropy_does_not_clip_all_values_onto_a_frequent_one() -> None:
    digits = np.append(np.full(80_000, -0.4242), RNG.uniform(-0.4242, 2.82, 20_000))
    assert entropy(histogram_of(digits)) > 2.5


def test_zeros_do_not_decide_entropy() -> None:
    values = np.abs(SHAPES["laplace"])
    with_zeros = np.concatenate((values, np.zeros(10_000_000)))
    assert entropy(histogram_of(with_zeros)) == entropy(histogram_of(values))


def test_entropy_is_quick() -> None:
    histogram = histogram_of(SHAPES["normal"])
    times = []
    for _ in range(10):
        start = time.process_time()
        entropy(histogram)
        times.append(time.process_time() - start)
    assert min(times) < 0.05  # 7 ms on an idle core


@pytest.mark.parametrize("name", SHAPES)
def test_mse_is_the_least_of_brute_force(name: str) -> None:
    values = np.abs(np.asarray(SHAPES[name], np.float32)).astype(float)
    histogram = histogram_of(values)

    def error(limit: float) -> float:
        step = limit / 127
        return float(((np.minimum(np.rint(values / step), 127) * step - values) ** 2).sum())

    best = min(error(i / 256 * histogram.amax) for i in range(16, 257))
    # Inside a bin of amax / 2048 the values are not known; that much, and no more, may be lost.
    slack = values.size * (histogram.amax / 2048) ** 2
    assert error(threshold(histogram, "mse")) <= best * 1.05 + slack


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("sign", [1, -1])
def test_mse_u8_is_the_least_of_brute_force(name: str, sign: int) -> None:
    values = sign * np.asarray(SHAPES[name], np.float32).astype(float)
    values[values < 0] *= 0.05  # as behind a swish: far wider on one side
    histogram = histogram_of(values)

    def error(limit: float) -> float:
        low, high = max(values.min(), -limit), min(values.max(), limit)
        step = (max(high, 0) - min(low, 0)) / 255
        return float(((np.clip(np.rint(values / step) * step, -limit, limit) - values) ** 2).sum())

    best = min(error(i / 256 * histogram.amax) for i in range(16, 257))
    slack = values.size * (histogram.amax / 2048) ** 2
    assert error(threshold(histogram, "mse-u8")) <= best * 1.05 + slack


def test_mse_u8_clips_less_behind_a_rectifier_and_the_same_around_zero() -> None:
    rectified, normal = histogram_of(SHAPES["relu"]), histogram_of(SHAPES["normal"])
    assert threshold(rectified, "mse-u8") > 1.03 * threshold(rectified, "mse")
    assert threshold(normal, "mse-u8") == pytest.approx(threshold(normal, "mse"), rel=0.02)


def test_percentile() -> None:
    values = np.abs(SHAPES["normal"])
    kept = threshold(histogram_of(values), "percentile")
    assert kept == pytest.approx(np.quantile(values, 0.9999), rel=0.01)
    assert (values > kept).mean() <= 1e-4


def test_minmax_is_the_greatest_value() -> None:
    assert threshold(histogram_of(np.array([-3.5, 2.0])), "minmax") == 3.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_threshold_lies_within_the_values(method: str, name: str) -> None:
    histogram = histogram_of(SHAPES[name])
    assert 0 < threshold(histogram, method) <= histogram.amax


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 1e-38, 1e-44])
def test_a_tensor_of_zeros_gets_a_scale_that_is_not_zero(method: str, value: float) -> None:
    assert threshold(histogram_of(np.full(100, value)), method) == 1.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-25, 1e36])
def test_very_small_and_very_large_values(method: str, scale: float) -> None:
    values = SHAPES["normal"] * scale
    histogram = histogram_of(values)
    normal = threshold(histogram_of(SHAPES["normal"]), method)
    assert threshold(histogram, method) == pytest.approx(normal * scale, rel=0.05)


def test_an_unknown_method_is_refused_with_the_names() -> None:
    with pytest.raises(UsageError, match="unknown calibration method 'kl'") as caught:
        threshold(histogram_of(np.ones(3)), "kl")
    assert caught.value.exit_code == 2
    assert "entropy" in caught.value.hint


def test_registry() -> None:
    assert list(METHODS) == ["entropy", "minmax", "percentile", "mse", "mse-u8"]
