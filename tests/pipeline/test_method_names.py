"""Names of methods that stand in the config and in commands, which load no numpy for them: those of the registries."""

from __future__ import annotations

from typing import get_args

import click
import pytest

from trtcompress import config
from trtcompress.cli import calibrate, equalize, quantize
from trtcompress_calibration.equalize.scales import METHODS as EQUALIZATIONS
from trtcompress_calibration.methods import METHODS
from trtcompress_calibration.weights import WEIGHT_METHODS


def test_the_config_names_those_that_there_are() -> None:
    assert get_args(config.Method) == (*METHODS, "auto")
    assert get_args(config.WeightMethod) == ("auto", *WEIGHT_METHODS)
    assert get_args(config.Equalization) == ("auto", "off", *EQUALIZATIONS)


@pytest.mark.parametrize(
    ("command", "option", "names"),
    [
        (calibrate.command, "method", (*METHODS, "auto")),
        (equalize.command, "method", tuple(METHODS)),
        (equalize.command, "how", ("auto", *EQUALIZATIONS)),
        (quantize.command, "weights", ("auto", *WEIGHT_METHODS)),
        (quantize.command, "rounding", get_args(config.Rounding)),
    ],
)
def test_commands_offer_those_that_there_are(command: click.Command, option: str, names: tuple[str, ...]) -> None:
    (kind,) = (param.type for param in command.params if param.name == option)
    assert isinstance(kind, click.Choice)
    assert tuple(kind.choices) == names
