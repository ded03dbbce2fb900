from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polygraphy.comparator import CosineSimilarityCompareFunc, IterationResult, SimpleCompareFunc, SnrCompareFunc
from polygraphy.logger import G_LOGGER

from trtcompress_engines.gates import GateLimits, judge, verdict
from trtcompress_engines.parity import ParityMeter
from trtcompress_graph.errors import DataError
from trtcompress_graph.measured import OutputParity


def parity(reference: np.ndarray, engine: np.ndarray) -> OutputParity:
    meter = ParityMeter()
    meter.add({"y": reference}, {"y": engine})
    (result,) = meter.result()
    return result


@pytest.mark.parametrize("seed", range(4))
def test_the_numbers_are_polygraphys(seed: int):
    rng = np.random.default_rng(seed)
    reference = (rng.normal(size=(1, 50)) + np.sign(rng.normal(size=(1, 50)))).astype(np.float32)
    engine = reference + rng.normal(scale=0.05, size=reference.shape).astype(np.float32)
    found = parity(reference, engine)
    ours, theirs = (IterationResult({"y": array}, runner_name="r") for array in (engine, reference))
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        simple = SimpleCompareFunc(check_error_stat="max")(ours, theirs)["y"]
        cosine = CosineSimilarityCompareFunc()(ours, theirs)["y"].cosine_similarity
        snr = SnrCompareFunc()(theirs, ours)["y"].snr
    assert found.max_abs == pytest.approx(simple.max_absdiff, rel=1e-5)
    assert found.max_rel == pytest.approx(simple.max_reldiff, rel=1e-4)
    assert found.cosine == pytest.approx(cosine, rel=1e-6)
    assert found.snr_db == pytest.approx(snr, rel=1e-5)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 99))
def test_batches_do_not_matter(cuts: list[int], seed: int):
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(sum(cuts), 3, 4))
    engine = reference + rng.normal(scale=0.1, size=reference.shape)
    meter, start = ParityMeter(), 0
    for size in cuts:
        meter.add({"y": reference[start : start + size]}, {"y": engine[start : start + size]})
        start += size
    (found,) = meter.result()
    whole = parity(reference, engine)
    assert (found.max_abs, found.max_rel, found.cosine) == (whole.max_abs, whole.max_rel, whole.cosine)
    assert found.snr_db == pytest.approx(whole.snr_db)


def test_the_worst_sample_counts():
    reference = np.eye(4, 8, dtype=np.float32)
    engine = reference.copy()
    engine[2] = -engine[2]
    assert parity(reference, engine).cosine == -1.0
    assert parity(reference, engine).max_abs == 2.0


def test_equal_outputs():
    same = parity(np.ones((2, 3)), np.ones((2, 3)))
    assert (same.max_abs, same.max_rel, same.cosine, same.snr_db) == (0, 0, 1, 999)
    nothing = parity(np.zeros((2, 3)), np.zeros((2, 3)))
    assert (nothing.cosine, nothing.snr_db) == (1, 999)
    assert parity(np.zeros((2, 3)), np.ones((2, 3))).cosine == 0


def test_one_number_a_sample_is_compared_over_all_samples():
    """A tiny number that changes its sign has cosine -1 by itself, and means nothing."""
    reference = np.array([[0.9], [0.001], [-0.8]])
    found = parity(reference, reference + np.array([[0.01], [-0.002], [0.01]]))
    assert found.cosine > 0.999
    assert parity(reference, -reference).cosine == pytest.approx(-1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 5])
def test_what_is_not_a_number_fails_every_gate_and_stays_json(bad: float, place: int):
    engine = np.ones((2, 3), np.float32)
    engine.flat[place] = bad
    found = parity(np.ones((2, 3), np.float32), engine)
    json.dumps(asdict(found), allow_nan=False)
    assert found.cosine == -1
    gates = judge(
        GateLimits(min_cosine=0.0), parity=(found,), metrics=(), speeds=(), size_bytes=1, emulated=False, measured=True
    )
    assert verdict(gates) == "fail"


def test_a_later_good_batch_does_not_heal_a_bad_one():
    meter = ParityMeter()
    meter.add({"y": np.ones((1, 2))}, {"y": np.array([[1.0, np.nan]])})
    meter.add({"y": np.ones((1, 2))}, {"y": np.ones((1, 2))})
    assert meter.result()[0].cosine == -1


def test_infinities_in_both_are_equal():
    mask = np.array([[1.0, -np.inf, 2.0]])
    found = parity(mask, np.array([[1.0, -np.inf, 2.5]]))
    assert found.max_abs == 0.5
    assert 0.9 < found.cosine < 1


def test_integers_booleans_and_scalars():
    assert parity(np.array([1, 2]), np.array([1, 2])).cosine == 1
    assert parity(np.array([[True, False]]), np.array([[True, True]])).max_abs == 1
    assert parity(np.float32(2.0), np.float32(2.5)).max_abs == 0.5


def test_a_missing_output_is_named():
    meter = ParityMeter()
    with pytest.raises(DataError, match="no output 'y'"):
        meter.add({"y": np.ones(2)}, {"z": np.ones(2)})


def test_another_shape_passes_no_gate():
    meter = ParityMeter()
    meter.add({"y": np.ones((2, 4))}, {"y": np.ones((2, 4))})
    meter.add({"y": np.ones((2, 4))}, {"y": np.ones((3, 4))})
    (parity,) = meter.result()
    assert parity.cosine == -1.0
    assert parity.max_abs == 1e308


@given(st.floats(-4, 4).filter(lambda factor: abs(factor - 1) > 1e-3), st.integers(0, 99))
def test_the_factor_is_found_over_batches_of_any_size(factor: float, seed: int):
    reference = np.random.default_rng(seed).normal(size=(7, 5))
    meter = ParityMeter()
    for rows in (slice(0, 3), slice(3, 4), slice(4, 7)):
        meter.add({"o": reference[rows]}, {"o": factor * reference[rows]})
    (found,) = meter.result()
    assert found.scale == pytest.approx(factor, abs=1e-9)
    assert found.snr_db == pytest.approx(-20 * np.log10(abs(factor - 1)), abs=1e-3)


def test_there_is_no_factor_of_nothing():
    assert parity(np.zeros((2, 3)), np.ones((2, 3))).scale is None


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        (np.array([[1.0, np.nan]]), "it holds NaN where the reference does not"),
        (np.array([[1.0, np.inf]]), "it holds infinity where the reference does not"),
        (np.ones((1, 3)), "its shape is [1, 3], the reference's [1, 2]"),
    ],
)
def test_what_cannot_be_compared_says_why(engine: np.ndarray, told: str):
    assert told in parity(np.ones((1, 2)), engine).note


def test_a_reference_without_a_number_is_told_and_passes_nothing():
    found = parity(np.full((2, 3), np.nan), np.full((2, 3), np.nan))
    assert (found.cosine, found.snr_db) == (-1, -999)
    assert "the reference itself gives nothing but NaN or infinity" in found.note
    assert "the reference itself gives NaN" in parity(np.array([[1, np.nan]]), np.array([[1.0, 2.0]])).note
    empty = parity(np.zeros((2, 0)), np.zeros((2, 0)))
    assert (empty.cosine, empty.note) == (1, "")


def test_swapped_outputs_are_told_and_others_are_not():
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 4, 5))
    meter = ParityMeter()
    for row in range(4):
        one = slice(row, row + 1)
        meter.add({"a": a[one], "b": b[one], "c": c[one]}, {"a": b[one], "b": a[one] * 1.01, "c": -c[one]})
    notes = {found.output: found.note for found in meter.result()}
    assert notes == {
        "a": "it is like the reference's output 'b': are their names swapped?",
        "b": "it is like the reference's output 'a': are their names swapped?",
        "c": "",
    }
    same = ParityMeter()
    same.add({"a": a, "b": a}, {"a": a, "b": a})
    assert not any(found.note for found in same.result())
