from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import paired  # noqa: E402
from child import run_measured  # noqa: E402
from search import greatest_within  # noqa: E402
from tasks import minilm, ppocr_rec, share  # noqa: E402


@given(st.integers(1, 200), st.integers(1, 8))
def test_every_sample_is_held_once_and_calibrates_elsewhere_only(samples: int, count: int) -> None:
    parts = paired.folds(samples, count)
    assert sorted(i for part in parts for i in part.held) == list(range(samples))
    for part in parts:
        assert not set(part.held) & set(part.rest)
        assert len(part.held) + len(part.rest) == samples


def test_the_drop_of_equal_answers_is_certain_and_that_of_others_is_not() -> None:
    rng = np.random.default_rng(3)
    full = (rng.random(400) < 0.8).astype(np.float64)
    same = paired.compare(share, full, full, full)
    assert same["drop"] == 0
    assert same["drop_ci"] == (0, 0)
    worse = full * (rng.random(400) < 0.9)
    found = paired.compare(share, full, worse, full)
    low, high = found["drop_ci"]
    assert low < found["drop"] < high
    assert found["drop"] == pytest.approx(full.mean() - worse.mean())
    # Pairs: the interval of the drop is narrower than that of either value, whose errors are mostly the same
    assert high - low < found["full_ci"][1] - found["full_ci"][0]


def test_spearman_is_that_of_ranks_with_ties_shared() -> None:
    assert minilm.spearman(np.array([1.0, 2, 3]), np.array([10.0, 100, 1000])) == pytest.approx(1)
    assert minilm.spearman(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    # 1, 2.5, 2.5, 4 against 1, 2, 3, 4
    assert minilm.spearman(np.array([1.0, 2, 2, 4]), np.array([1.0, 2, 3, 4])) == pytest.approx(0.9486833)


def test_no_line_of_text_is_tested_and_calibrates() -> None:
    texts = ppocr_rec._texts()
    assert len(set(texts)) == len(texts) == ppocr_rec.TEST + ppocr_rec.CALIBRATION


@pytest.mark.parametrize("budget", [0.1, 0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("power", [1, 2, 3])
def test_the_setting_comes_just_within_the_budget_in_few_steps(budget: float, power: int) -> None:
    tried = []

    def make(ratio: float) -> float:
        tried.append(ratio)
        return (1 - ratio) ** power

    made, setting = greatest_within(make, lambda kept: kept, budget)
    assert budget - 0.01 <= made <= budget
    assert made == (1 - setting) ** power
    assert len(tried) <= 8


def test_a_budget_out_of_reach_gives_the_cheapest() -> None:
    made, _ = greatest_within(lambda ratio: max(0.5, 1 - ratio), lambda kept: kept, 0.3)
    assert made == 0.5


def test_a_process_is_measured_with_its_children(tmp_path: Path) -> None:
    hold = "import time; held = bytearray(200 << 20); time.sleep(0.4)"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}]); sys.exit('went wrong')"
    ended = run_measured([sys.executable, "-c", nested], cwd=tmp_path)
    assert ended.code == 1
    assert ended.last_words == "went wrong"
    assert 0.2 < ended.peak_gib < 0.4
    assert ended.seconds >= 0.4
