"""How minutes are laid out, and which rates are tried."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcompress.recovery.pace import JUDGEMENTS, JUDGING, about, fitting, interval, laid_out_again, still_fitting
from trtcompress.recovery.rates import MOST_TRIED, climb, trial_steps

seconds = st.floats(1e-3, 1e3)


@given(budget=seconds, step=seconds, judging=seconds)
def test_what_is_laid_out_fits(budget, step, judging):
    steps, judgements = fitting(budget, step, judging)
    assert 4 <= judgements <= JUDGEMENTS
    assert steps == 1 or steps * step + judgements * judging <= budget * (1 + 1e-9)
    if judgements > 4:
        assert judgements * judging <= JUDGING * budget * (1 + 1e-9)


@given(steps=st.integers(1, 10**6), judgements=st.integers(4, JUDGEMENTS))
def test_a_training_is_judged_as_often_as_was_laid_out(steps, judgements):
    every = interval(steps, judgements)
    assert every >= 1
    assert steps // every >= min(steps, 4)


@given(steps=st.integers(1, 10**5), judgements=st.integers(4, JUDGEMENTS), slower=st.integers(1, 100))
def test_on_a_machine_that_becomes_slower_judging_keeps_its_share(steps, judgements, slower):
    before, left = interval(steps, judgements), max(1, steps // slower)
    every = laid_out_again(left, before, judgements)
    assert left // every >= min(left, 4)
    assert every >= before or left // every < 8, "more often than before only so that it is judged four times"


@given(done=st.integers(1, 10**5), step=seconds, left=st.floats(0, 1e4))
def test_steps_that_are_left_run_as_fast_as_those_that_are_done(done, step, left):
    spent = done * step
    total = still_fitting(done, spent, spent + left)
    assert abs(total - (done + left / step)) <= 1 + 1e-6 * total


def test_a_training_that_is_late_has_no_step_left():
    assert still_fitting(10, 20.0, 15.0) == 10


@given(size=st.integers(1, 8), first=st.integers(0, 7), peak=st.integers(0, 7))
def test_the_best_rate_is_found_where_losses_have_one_bottom(size, first, peak):
    rates, peak = [10.0**-place for place in range(size, 0, -1)], min(peak, size - 1)
    first = rates[min(first, size - 1)]
    asked: list[float] = []

    def loss_of(rate):
        asked.append(rate)
        return float(abs(rates.index(rate) - peak))

    assert climb(rates, first, loss_of) == (rates[peak], 0.0, len(asked))
    assert len(asked) == len(set(asked)), "no rate is tried twice"


def test_of_rates_that_go_astray_the_lowest_is_left():
    assert climb([1.0, 2.0, 3.0, 4.0], 3.0, lambda rate: math.inf) == (1.0, math.inf, 4)


@pytest.mark.parametrize(("total", "steps"), [(1, 1), (8, 1), (48, 6), (400, 20), (10**6, MOST_TRIED)])
def test_trials_are_a_small_part_of_the_training(total, steps):
    assert trial_steps(total) == steps


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (89, "89 s"), (91, "2 min"), (1250, "21 min"), (6000, "1.7 h"), (1e6, "277.8 h")],
)
def test_a_time_in_words(seconds, words):
    assert about(seconds) == words
