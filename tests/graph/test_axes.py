"""Ranges of dynamic axes: what is lacking is told at once."""

from __future__ import annotations

import pytest

from trtcompress_graph.axes import AxisRange, input_shapes
from trtcompress_graph.errors import UsageError
from trtcompress_graph.model import TensorSpec

IDS = TensorSpec("ids", "int64", ("batch", "seq"))
MASK = TensorSpec("mask", "int64", ("batch", "seq"))
IMAGE = TensorSpec("image", "float32", ("batch", 3, "height", 224))


def test_all_axes_without_a_range_are_told_with_one_option_for_those_that_share_a_name():
    with pytest.raises(UsageError) as caught:
        input_shapes((IDS, MASK, IMAGE), {}, "opt")
    error = caught.value
    assert (
        error.what
        == "the dynamic axes have no range: 'batch' of ids, mask, image; 'seq' of ids, mask; 'height' of image"
    )
    sets = ("ids.batch", "ids.seq", "image.height")
    assert [part for part in error.hint.split() if part.startswith("'model.inputs.")] == [
        f"'model.inputs.{name}=[1," for name in sets
    ]
    assert all(f"--axis {name}=1,8,16" in error.hint for name in sets)
    assert error.exit_code == 2


def test_only_the_one_that_lacks_a_range_is_told():
    with pytest.raises(UsageError, match="the dynamic axis has no range: 'height' of image\n") as caught:
        input_shapes((IDS, MASK, IMAGE), {"ids": {"batch": AxisRange(1, 2, 4), "seq": AxisRange(8, 8, 8)}}, "min")
    assert "ids" not in caught.value.hint


def test_an_axis_has_its_range_wherever_its_name_stands():
    axes = {"ids": {"batch": AxisRange(1, 2, 4), "seq": AxisRange(8, 16, 32)}}
    assert input_shapes((IDS, MASK), axes, "max") == {"ids": (4, 32), "mask": (4, 32)}
