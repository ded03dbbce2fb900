"""Axis ranges of the config, by the names of the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtcompress.profiles import batch_range, named_axes, profiles
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import ConfigError
from trtcompress_graph.model import Model, TensorSpec

MODEL = Model(
    Path("m.onnx"),
    "0" * 64,
    (TensorSpec("ids", "int64", ("batch", "seq")), TensorSpec("mask", "int64", ("batch", "mask_1"))),
    (TensorSpec("y", "float32", ("batch", 4)),),
)
BATCH, SEQ = AxisRange(1, 4, 8), AxisRange(2, 16, 32)


@pytest.mark.parametrize("key", ["mask_1", "1", "length@1"])
def test_an_axis_by_name_by_place_or_by_both(key: str):
    assert named_axes(MODEL, {"mask": {key: SEQ}}) == {"mask": {"mask_1": SEQ}}


@pytest.mark.parametrize("key", ["batch", "batch@0", "0"])
def test_an_axis_of_one_length_that_the_graph_holds_as_a_number(key: str):
    fixed = Model(Path("m.onnx"), "0" * 64, (TensorSpec("x", "float32", (3, 8)),), ())
    assert named_axes(fixed, {"x": {key: AxisRange(3, 3, 3)}}) == {"x": {}}
    with pytest.raises(ConfigError, match="no dynamic axis"):
        named_axes(fixed, {"x": {key: AxisRange(4, 4, 4)}})


def test_a_range_given_once_or_twice_alike_holds_at_every_input():
    axes = {"ids": {"batch": BATCH, "seq": SEQ}, "mask": {"1": SEQ}}
    twice = {**axes, "mask": {"1": SEQ, "batch": BATCH}}
    expected = dict.fromkeys(("ids", "mask"), ((1, 2), (4, 16), (8, 32)))
    assert profiles(MODEL, axes) == profiles(MODEL, twice) == expected
    assert batch_range(MODEL.inputs, axes) == BATCH


@pytest.mark.parametrize(
    ("axes", "where", "message"),
    [
        ({"ids": {"batch": BATCH}, "mask": {"batch": SEQ}}, "model.inputs.mask.batch", "another range .* 'ids'"),
        ({"idz": {"batch": BATCH}}, "model.inputs.idz", "no input 'idz'"),
        ({"ids": {"bach": BATCH}}, "model.inputs.ids.bach", "no dynamic axis 'bach'"),
        ({"ids": {"7": BATCH}}, "model.inputs.ids.7", "no dynamic axis '7'"),
    ],
)
def test_axes_that_do_not_fit(axes: dict[str, dict[str, AxisRange]], where: str, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        named_axes(MODEL, axes)
    assert caught.value.where == where
