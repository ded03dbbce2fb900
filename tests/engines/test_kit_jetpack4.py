"""Settings that trtexec of JetPack 4 does not have."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from trtcompress_engines.kit.jetpack4 import _left_out
from trtcompress_engines.tensorrt_release import Release


@pytest.mark.parametrize("name", ["trt-int8", "implicit-int8"])
@pytest.mark.parametrize(("level", "told"), [(None, 0), (0, 1), (3, 1)])
def test_a_level_that_is_asked_for_and_not_there_is_told(level, told, name):
    facts = {"builder": {"optimization_level": level, "strip": False}, "dla": None}
    found = _left_out(SimpleNamespace(profiles=({},)), facts, Release("classic", "8.2"), name)
    assert len(found) == told
    assert all(line.startswith("optimization_level: ") for line in found)


@pytest.mark.parametrize(
    ("name", "dla", "told"), [("trt-int8", None, 1), ("trt-int8", 0, 0), ("implicit-int8", None, 0)]
)
def test_profiles_are_left_out_but_for_a_dla_which_takes_none(name, dla, told):
    found = _left_out(SimpleNamespace(profiles=({}, {})), {"builder": {}, "dla": dla}, Release("classic", "8.2"), name)
    assert len(found) == told
