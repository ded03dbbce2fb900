"""Samples of one kind are never told apart, and those that were preprocessed otherwise are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from float_graphs import measured, residual_net
from trtcompress_calibration.doubts import refuse_constant
from trtcompress_calibration.likeness import LEAST, unlike
from trtcompress_calibration.samples import Sample
from trtcompress_graph.errors import DataError
from trtcompress_graph.model import TensorSpec

X = (TensorSpec("x", "float32", ("batch", 3, 8, 8)),)


def samples(values: np.ndarray, name: str = "x") -> list[Sample]:
    return [Sample({name: value[None]}) for value in values]


def photos(count: int, seed: int, spread: float = 0.5) -> np.ndarray:
    """Like images: each of its own brightness and contrast, 0 to 1."""
    rng = np.random.default_rng(seed)
    light, contrast = rng.uniform(0.2, 0.8, (count, 1, 1, 1)), rng.uniform(0.05, spread, (count, 1, 1, 1))
    return np.clip(light + contrast * rng.normal(size=(count, 3, 8, 8)), 0, 1)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(LEAST, 64), st.integers(LEAST, 64))
def test_samples_of_one_kind_are_alike(seed: int, first: int, second: int) -> None:
    assert unlike(samples(photos(first, seed)), samples(photos(second, seed + 1)), X) == ""


@pytest.mark.parametrize(
    "preprocess",
    [lambda x: x * 255, lambda x: x * 2 - 1, lambda x: (x - 0.45) / 0.22, lambda x: x - 3, lambda x: x * 0],
    ids=["not scaled", "minus one to one", "normalised", "shifted", "zero"],
)
def test_other_preprocessing_is_told(preprocess) -> None:
    ours, theirs = samples(photos(16, 1)), samples(preprocess(photos(16, 2)))
    for one, other in ((ours, theirs), (theirs, ours)):
        told = unlike(one, other, X)
        assert told.startswith("'x' has mean ")
        assert "where it calibrates" in told


def test_one_common_sample_makes_them_alike_and_ends_the_reading() -> None:
    def read() -> Iterator[Sample]:
        yield from samples(photos(1, 3))
        raise AssertionError("nothing more is read")

    assert unlike(samples(np.concatenate([photos(64, 1), photos(64, 2)])), read(), X) == ""


def test_few_samples_small_inputs_and_masks_tell_nothing() -> None:
    few = samples(photos(LEAST - 1, 1))
    assert unlike(few, samples(255 * photos(40, 2)), X) == ""
    assert unlike(samples(255 * photos(40, 2)), few, X) == ""
    user = (TensorSpec("user", "int64", ("batch", 1)),)
    assert unlike(samples(np.arange(50)[:, None], "user"), samples(np.arange(50, 99)[:, None], "user"), user) == ""
    mask = (TensorSpec("mask", "int64", ("batch", 32)),)
    whole, padded = np.ones((20, 32), np.int64), np.tile(np.arange(32) < 9, (20, 1)).astype(np.int64)
    assert unlike(samples(whole, "mask"), samples(padded, "mask"), mask) == ""


def test_what_differs_a_little_is_let_pass() -> None:
    rng = np.random.default_rng(0)
    shown = rng.normal(size=(40, 3, 8, 8))
    near, far = shown + 0.45, shown + 0.6
    for values in (near, far):
        values -= values.mean((1, 2, 3), keepdims=True) - values.mean()
    shown = shown - shown.mean((1, 2, 3), keepdims=True)
    assert unlike(samples(shown), samples(near), X) == ""
    assert unlike(samples(shown), samples(far), X) != ""


def test_constant_samples_are_refused(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "m.onnx")
    for value, word in ((0.0, "every sample is zero"), (0.25, "every sample is 0.25 throughout")):
        held = measured(model, samples(np.full((4, 3, 16, 16), value, np.float32)))
        with pytest.raises(DataError, match=word) as refused:
            refuse_constant(held, model.inputs, "d.npz")
        assert "d.npz" in str(refused.value)
    mixed = np.stack([np.zeros((3, 16, 16)), np.ones((3, 16, 16))]).astype(np.float32)
    refuse_constant(measured(model, samples(mixed)), model.inputs, "d.npz")
    unseen = (*model.inputs, TensorSpec("ids", "int64", ("batch", 4)))
    refuse_constant(measured(model, samples(np.zeros((4, 3, 16, 16), np.float32))), unseen, "d.npz")
