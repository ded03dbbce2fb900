"""Histograms must not depend on how the values came in."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trtcompress_calibration.histogram import (
    BINS,
    BULK,
    Extremes,
    Histogram,
    bulk_magnitude,
    merge,
    rebinned,
    share_beyond,
)

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
arrays = hnp.arrays(np.float32, st.integers(1, 60), elements=floats)


def counted(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.update(part)
    return histogram


def state(histogram: Histogram) -> tuple[object, ...]:
    return (histogram.counts.tobytes(), histogram.exponent, histogram.min, histogram.max, histogram.count)


def naive(values: np.ndarray, width: float) -> np.ndarray:
    return np.bincount((np.abs(values.astype(np.float64)) / width).astype(np.int64), minlength=BINS)


@settings(max_examples=200, deadline=None)
@given(st.lists(arrays, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_order_split_and_merging_change_nothing(parts: list[np.ndarray], random) -> None:
    whole = state(counted(np.concatenate(parts)))
    shuffled = [*parts]
    random.shuffle(shuffled)
    assert state(counted(*shuffled)) == whole
    merged = Histogram()
    for part in shuffled:
        merged = merge(merged, counted(part))
    assert state(merged) == whole


@settings(max_examples=200, deadline=None)
@given(arrays)
def test_bins_hold_what_their_edges_say(values: np.ndarray) -> None:
    histogram = counted(values)
    assert (histogram.counts == naive(values, histogram.width)).all()
    assert (histogram.min, histogram.max) == (values.min() + 0.0, values.max() + 0.0)
    if histogram.amax >= 2.0**-100:
        assert BINS / 2 <= histogram.amax / histogram.width < BINS


@pytest.mark.parametrize("size", [32767, 32768, 100_003])
def test_large_arrays_are_counted_like_small_ones(size: int) -> None:
    rng = np.random.default_rng(size)
    values = (rng.standard_normal(size) * np.geomspace(1e-3, 1e3, size)).astype(np.float32)  # grows on the way
    large = counted(values)
    assert state(large) == state(counted(*np.array_split(values, 50)))
    assert (large.counts == naive(values, large.width)).all()
    assert state(counted(values[::-1])) == state(large)


def test_other_float_types_and_layouts() -> None:
    values = np.random.default_rng(0).standard_normal((8, 12, 16)).astype(np.float16)
    expected = state(counted(values.astype(np.float32)))
    assert state(counted(values)) == state(counted(values.astype(np.float64))) == expected
    assert state(counted(values.transpose(2, 0, 1))) == expected


def test_zeros_and_nothing() -> None:
    empty = counted(np.zeros((0, 3), np.float32))
    assert (empty.count, empty.amax) == (0, 0.0)
    zeros = counted(np.array([0.0, -0.0], np.float32))
    assert (zeros.count, zeros.counts[0], zeros.min, zeros.max) == (2, 2, 0.0, 0.0)
    assert not np.signbit(zeros.min)
    assert state(merge(empty, zeros)) == state(zeros)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [3, 50_000])
@pytest.mark.parametrize("kind", [Histogram, Extremes])
def test_not_finite_is_refused(bad: float, size: int, kind: type[Extremes]) -> None:
    values = np.ones(size, np.float32)
    values[size // 2] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        kind().update(values)


@settings(max_examples=100, deadline=None)
@given(st.lists(arrays, min_size=1, max_size=4))
def test_extremes(parts: list[np.ndarray]) -> None:
    extremes = Extremes()
    for part in parts:
        extremes.update(part)
    values = np.concatenate(parts)
    assert (extremes.min, extremes.max, extremes.count) == (values.min(), values.max(), values.size)


@settings(max_examples=100, deadline=None)
@given(arrays.filter(lambda values: np.abs(values).max() >= 2.0**-100), st.sampled_from([128, 2048]))
def test_rebinned_keeps_every_count(values: np.ndarray, bins: int) -> None:
    histogram = counted(values)
    counts = rebinned(histogram, bins)
    assert counts.dtype == np.int64
    assert len(counts) == bins
    assert counts.min() >= 0
    assert counts.sum() == values.size
    assert counts[-1] >= 1  # amax itself


@pytest.mark.parametrize("scale", [0.51, 0.75, 0.999, 1.0, 3.7])
def test_rebinned_is_close_to_numpy(scale: float) -> None:
    values = (np.random.default_rng(1).uniform(-1, 1, 400_000) * scale).astype(np.float32)
    histogram = counted(values)
    direct = np.histogram(np.abs(values), 2048, (0, histogram.amax))[0]
    assert np.abs(np.cumsum(rebinned(histogram, 2048)) - np.cumsum(direct)).max() < 200  # a bin holds about 195


def test_share_beyond() -> None:
    histogram = counted(np.arange(-1000, 1000, dtype=np.float32))
    assert share_beyond(histogram, 1000.0) == 0.0
    assert share_beyond(histogram, 900.0) == pytest.approx(0.1, abs=1e-3)
    assert share_beyond(Histogram(), 1.0) == 0.0


def test_memory_does_not_grow() -> None:
    histogram = Histogram()
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    histogram.update(values)
    tracemalloc.start()
    for _ in range(200):  # 80 MB of values
        histogram.update(values)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 1e6
    assert histogram.count == 201 * 100_000


@settings(max_examples=200, deadline=None)
@given(arrays)
def test_three_in_five_of_what_is_not_zero_lie_under_the_bulk(values: np.ndarray) -> None:
    histogram = counted(values)
    bins = np.sort((np.abs(values.astype(np.float64)) / histogram.width).astype(np.int64))
    beyond = bins[bins > 0]
    expected = (beyond[int(np.ceil(BULK * beyond.size)) - 1] + 0.5) * histogram.width if beyond.size else 0.0
    assert bulk_magnitude(histogram) == expected
