"""Which lengths the costs of a model are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from command_line import trtcompress
from float_graphs import Net
from trtcompress.inspection import assumed_axes, inspect_model
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.model import Model

LONG = AxisRange(8, 16, 32)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    net = Net()
    net.conv("x", "y", 3, 4)
    shape = {"x": ("batch", 3, "height", "width")}
    return net.save(tmp_path / "m.onnx", shape, {"y": ("batch", 4, "height", "width")})


@pytest.mark.parametrize(
    ("axes", "assumed", "pixels"),
    [
        ({}, ("x.height", "x.width"), 1),
        ({"batch": LONG}, ("x.height", "x.width"), 16),
        ({"height": LONG}, ("x.width",), 16),
        ({"height@2": LONG, "3": LONG}, (), 256),
    ],
)
def test_lengths_that_nobody_gave(
    model: Model, axes: dict[str, AxisRange], assumed: tuple[str, ...], pixels: int
) -> None:
    found = inspect_model(model.path, {"x": axes}, 3)
    assert assumed_axes(found, {"x": axes}) == assumed
    assert found.macs == np.prod((4, 3, 3, 3)) * pixels


def test_they_are_said(model: Model) -> None:
    ran = trtcompress("inspect", model.path)
    assert ran.code == 0
    assert "x.height, x.width: of unknown length, counted as 1" in ran.err
    assert "--axis x.height=224 --axis x.width=224" in ran.err
    assert not trtcompress("inspect", model.path, "--axis", "x.height=8", "--axis", "x.width=8").err
