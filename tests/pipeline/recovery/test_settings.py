"""What follows from the settings of a training."""

from __future__ import annotations

import pytest

from trtcompress.cli.recover import _settings, command
from trtcompress.config import RecoverSettings
from trtcompress.recovery.settings import PLENTY, Training, fits_blocks, training_of


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


def test_plain_values_of_the_config_are_options_of_the_command(tmp_path):
    given = ("--steps", "7", "--clip", "0.5", "--ema", "0", "--weight-decay", "0")
    files = ("s.onnx", "--teacher", "t.onnx", "--data", "d.npz", "-o", str(tmp_path / "o.onnx"))
    params = command.make_context("recover", [*files, *given]).params
    training = training_of(_settings({name: params[name] for name in RecoverSettings.model_fields if name in params}))
    assert (training.steps, training.clip, training.average, training.decay) == (7, 0.5, 0.0, 0.0)
