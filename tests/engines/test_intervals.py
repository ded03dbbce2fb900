from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcompress_engines.intervals import bootstrap_means, percentile_interval, wilson


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_within_0_and_1(case: tuple[int, int]):
    right, samples = case
    low, high = wilson(right, samples)
    assert 0 <= low <= right / samples <= high <= 1
    assert low < high


def test_wilson_by_hand():
    """Newcombe 1998, table I: 81 of 263 is 0.2553 to 0.3662, 0 of 20 is 0 to 0.1611."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@pytest.mark.parametrize(("samples", "share"), [(50, 0.9), (200, 0.5), (500, 0.98)])
def test_wilson_covers_the_truth_in_about_95_of_100_cases(samples: int, share: float):
    rights = np.random.default_rng(1).binomial(samples, share, size=2000)
    covered = np.mean([low <= share <= high for low, high in (wilson(int(right), samples) for right in rights)])
    assert 0.925 <= covered <= 0.985


def test_the_bootstrap_covers_the_truth_in_about_95_of_100_cases():
    rng = np.random.default_rng(2)
    intervals = [percentile_interval(bootstrap_means(rng.exponential(size=150))) for _ in range(200)]
    covered = np.mean([low <= 1.0 <= high for low, high in intervals])
    assert 0.88 <= covered <= 0.99


def test_the_bootstrap_is_seeded():
    scores = np.random.default_rng(3).normal(size=100)
    assert np.array_equal(bootstrap_means(scores), bootstrap_means(scores))
    assert bootstrap_means(scores).shape == (2000,)
    assert bootstrap_means(np.ones(1)).tolist() == [1.0] * 2000
