from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcompress.exporting.compare import difference

FLOATS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20)


@given(values=FLOATS)
def test_equal_values_do_not_differ(values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert difference(array, array.copy()) == ""


@given(values=FLOATS, place=st.integers(0, 19))
def test_a_difference_of_a_thousandth_of_the_scale_is_found(values: list[float], place: int) -> None:
    array = np.array(values, np.float32)
    other = array.copy()
    other[place % len(values)] += max(float(np.abs(array).max()), 1e-3) * 1e-3
    assert "off by up to" in difference(array, other)
    assert difference(array, array * np.float32(1 + 1e-6)) == ""


@pytest.mark.parametrize(
    ("expected", "given_", "told"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "shape"),
        (np.zeros(2, np.float32), np.zeros(2, np.float64), "type"),
        (np.array([1, 2]), np.array([1, 3]), "1 of 2 values differ"),
        (np.array([1, np.nan]), np.array([1.0, 2.0]), "infinite or undefined"),
        (np.array([1.0, 2.0]), np.array([1, np.inf]), "infinite or undefined"),
        (np.array([1, np.inf]), np.array([1, -np.inf]), "infinite or undefined"),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf]), ""),
    ],
)
def test_other_differences(expected: np.ndarray, given_: np.ndarray, told: str) -> None:
    found = difference(expected, given_)
    assert told in found
    assert bool(found) == bool(told)
