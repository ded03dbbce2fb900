"""What follows from the settings of a training."""

from __future__ import annotations

import pytest

from trtcompress.recovery.settings import PLENTY, Training, fits_blocks


@pytest.mark.parametrize(
    ("training", "samples", "fits"),
    [
        (Training(minutes=3), PLENTY - 1, True),
        (Training(minutes=3), PLENTY, False),
        (Training(minutes=3, blockwise=True), PLENTY, True),
        (Training(epochs=3), PLENTY, True),
        (Training(epochs=3, blockwise=False), 100, False),
        (Training(), PLENTY, True),
    ],
)
def test_blocks_come_first_unless_minutes_meet_many_samples(training, samples, fits):
    assert fits_blocks(training, samples) is fits
