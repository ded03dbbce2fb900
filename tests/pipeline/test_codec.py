"""Frozen values to JSON and back, with paths that can move; and what a fingerprint sees of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trtcompress.codec import decode, encode, identity, paths_in
from trtcompress.config import MeasureSettings
from trtcompress.digests import digest_of
from trtcompress.validation import Packages
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.model import Model, TensorSpec
from trtcompress_graph.ranges import Ranges, TensorRange
from trtcompress_graph.target import Engine

_texts = st.text(st.characters(codec="utf-8"), max_size=6)
_files = st.lists(st.sampled_from(["a", "b", ".."]), min_size=1, max_size=3).map(lambda parts: Path("/root/x", *parts))
_specs = st.builds(TensorSpec, _texts, _texts, st.lists(st.integers(0, 9) | _texts, max_size=3).map(tuple))
_models = st.builds(Model, _files, _texts, st.tuples(_specs), st.lists(_specs, max_size=2).map(tuple))
_floats = st.floats(allow_nan=False)
_ranges = st.builds(TensorRange, _floats, _floats, st.none() | _floats, _floats)
_values = (
    _models
    | st.builds(Ranges, st.just(1), _texts, _texts, st.integers(), st.dictionaries(_texts, _ranges, max_size=2))
    | st.builds(
        Engine,
        _files,
        _texts,
        _texts,
        _texts,
        _texts,
        _models,
        st.booleans(),
        st.booleans(),
        st.dictionaries(_texts, _texts, max_size=2),
    )
    | st.builds(Packages, _texts, st.dictionaries(_texts, _files, max_size=2), st.lists(_texts, max_size=2).map(tuple))
)


def normal(value: object) -> object:
    return json.loads(json.dumps(encode(value, Path("/root"))))


@given(_values)
def test_values_come_back_from_json(value: object):
    root = Path("/root/x")
    text = json.dumps(encode(value, root))
    assert normal(decode(type(value), json.loads(text), root)) == normal(value)


def test_paths_move_with_their_folder():
    model = Model(Path("/store/ab/entry/sub/m.onnx"), "d", (), ())
    encoded = encode(model, Path("/store/ab/entry"))
    assert "/store" not in json.dumps(encoded)
    assert decode(Model, encoded, Path("/other/entry")).path == Path("/other/entry/sub/m.onnx")
    assert paths_in(encoded, Path("/other")) == [Path("/other/sub/m.onnx")]


def test_paths_beside_their_folder_stay_relative():
    encoded = encode(Packages("cpu", {"triton": Path("/store/cd/two/t")}, ()), Path("/store/ab/one"))
    assert paths_in(encoded, Path("/moved/ab/one")) == [Path("/moved/cd/two/t")]


@pytest.mark.parametrize("value", [None, 3, {"path": {"$path": "m"}}, {"path": 3, "digest": "d"}])
def test_json_of_another_type_is_refused(value: object):
    with pytest.raises(ValidationError):
        decode(Model, value, Path("/root"))


@given(_models, _files)
def test_where_a_file_lies_is_not_its_identity(model: Model, path: Path):
    moved = Model(path, model.digest, model.inputs, model.outputs)
    assert identity(moved) == identity(model)
    changed = Model(model.path, model.digest + "1", model.inputs, model.outputs)
    assert identity(changed) != identity(model)


@dataclass(frozen=True)
class Partly:
    FINGERPRINT: ClassVar = ("counted",)
    counted: int
    beside: float


def test_a_class_may_name_what_counts():
    assert identity(Partly(1, 2.0)) == identity(Partly(1, 3.0)) != identity(Partly(2, 2.0))


@dataclass(frozen=True)
class Everything:
    settings: MeasureSettings
    by_name: Mapping[str, tuple[Literal["a", "b"], ...]]
    maybe: int | None


def test_settings_and_mappings_come_back():
    value = Everything(MeasureSettings(seconds=0.5, batches=(1, 2)), {"x": ("a", "b"), "y": ()}, None)
    encoded = json.loads(json.dumps(encode(value, Path("/r"))))
    assert decode(Everything, encoded, Path("/r")) == value
    assert identity(value)["settings"]["batches"] == [1, 2]


def test_the_order_of_axes_counts():
    """`{height: ..., width: ...}` puts them at other places than `{width: ..., height: ...}`."""
    one, other = AxisRange(1, 2, 3), AxisRange(1, 4, 8)
    keys = {
        digest_of(identity({"x": axes}))
        for axes in ({"h": one, "w": other}, {"w": other, "h": one}, {"h": other, "w": one})
    }
    assert len(keys) == 3
