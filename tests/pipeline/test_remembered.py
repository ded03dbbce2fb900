"""Answers that are kept from one pass over samples to the next."""

from __future__ import annotations

import numpy as np

from trtcompress.remembered import Answers


class Counting:
    """Doubles `x`, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def infer(self, feed):
        self.asked += 1
        return {"y": 2 * feed["x"]}


def test_the_same_samples_are_asked_once():
    runner, other, answers = Counting(), Counting(), Answers()
    feeds = [{"x": np.full((2, 3), value, np.float32)} for value in (1, 2, 1)]
    for _ in range(3):
        for feed in feeds:
            assert np.array_equal(answers.of("a", runner).infer(feed)["y"], 2 * feed["x"])
    assert runner.asked == 2
    answers.of("b", other).infer(feeds[0])
    assert other.asked == 1, "another model answers for itself"


def test_type_and_shape_are_part_of_a_question():
    runner, answers = Counting(), Answers()
    zeros = np.zeros(6, np.float32)
    for array in (zeros, zeros.reshape(2, 3), zeros.astype(np.int32)):
        assert answers.of("a", runner).infer({"x": array})["y"].shape == array.shape
    assert runner.asked == 3


def test_beyond_its_room_it_asks_again():
    runner = Counting()
    answers = Answers(most=100)
    feeds = [{"x": np.full(20, value, np.float32)} for value in range(3)]  # 80 bytes each
    for _ in range(2):
        for feed in feeds:
            answers.of("a", runner).infer(feed)
    assert runner.asked == 5


def test_texts_are_asked_anew():
    """An array of objects holds addresses, which other texts take over later."""
    runner, answers = Counting(), Answers()
    for text in ("a", "b", "a"):
        found = answers.of("m", runner).infer({"x": np.array([text], object)})
        assert found["y"][0] == 2 * text
    assert runner.asked == 3


def test_types_that_are_not_numpys_own():
    import ml_dtypes

    runner, answers = Counting(), Answers()
    for value in (1, 2, 1):
        answers.of("m", runner).infer({"x": np.full(3, value, ml_dtypes.bfloat16)})
    assert runner.asked == 2
