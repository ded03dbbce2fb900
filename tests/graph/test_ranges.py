"""The file of ranges: of this version, of the one before, and edited by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcompress_graph.errors import DataError
from trtcompress_graph.ranges import VERSION, Ranges, TensorRange, read_ranges

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(0, exclude_min=True, allow_infinity=False)
TENSORS = st.builds(
    lambda ends, *rest: TensorRange(min(ends), max(ends), *rest),
    *(st.tuples(NUMBERS, NUMBERS), st.none() | POSITIVE, st.floats(0, 1), st.text(max_size=5), st.integers(0)),
)
OLD = {
    "version": 1,
    "model_sha256": "11",
    "method": "mse",
    "samples": 4,
    "tensors": {
        "x": {"min": -1.0, "max": 2.0, "threshold": 1.5, "clipped": 0.25},
        "sum": {"min": -9.0, "max": 9.0, "threshold": None, "clipped": 0.0},
    },
}


@given(st.dictionaries(st.text(max_size=5), TENSORS, max_size=3))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, TensorRange]):
    ranges = Ranges(VERSION, "11" * 32, "entropy", 8, tensors)
    path = tmp_path_factory.mktemp("ranges") / "ranges.json"
    ranges.write(path)
    assert read_ranges(path) == ranges


def test_a_file_of_version_1_gives_each_tensor_its_method_and_samples(tmp_path: Path):
    path = tmp_path / "ranges.json"
    path.write_text(json.dumps(OLD))
    read = read_ranges(path)
    assert read.version == VERSION
    assert read.tensors["x"] == TensorRange(-1.0, 2.0, 1.5, 0.25, "mse", 4)
    assert read.tensors["sum"] == TensorRange(-9.0, 9.0, None, 0.0, "", 4)


def test_a_file_of_version_2_has_no_bulk(tmp_path: Path):
    path = tmp_path / "ranges.json"
    Ranges(VERSION, "11", "mse", 4, {"x": TensorRange(-1.0, 2.0, 2.0, 0.0, "mse", 4, 0.5)}).write(path)
    raw = json.loads(path.read_text())
    del raw["tensors"]["x"]["bulk"]
    path.write_text(json.dumps(raw | {"version": 2}))
    read = read_ranges(path)
    assert (read.version, read.tensors["x"]) == (VERSION, TensorRange(-1.0, 2.0, 2.0, 0.0, "mse", 4))


def test_a_tensor_that_was_edited_stays_told(tmp_path: Path):
    path = tmp_path / "ranges.json"
    Ranges(VERSION, "11", "entropy", 4, {"x": TensorRange(-1.0, 2.0, 2.0, 0.0, "entropy", 4)}).write(path)
    raw = json.loads(path.read_text())
    raw["tensors"]["x"] |= {"threshold": 1.0, "method": "by hand"}
    path.write_text(json.dumps(raw))
    assert read_ranges(path).tensors["x"] == TensorRange(-1.0, 2.0, 1.0, 0.0, "by hand", 4)


@pytest.mark.parametrize(
    ("edited", "why"),
    [
        ({"threshold": 0.0}, "the threshold 0 is not greater than 0"),
        ({"threshold": -1}, "the threshold -1 is not greater than 0"),
        ({"threshold": True}, "not a finite number"),
        ({"threshold": float("inf")}, "not a finite number"),
        ({"min": 3.0}, "min 3 is greater than max 2"),
        ({"clipped": 1.5}, "clipped 1.5 is no share"),
        ({"clipped": -0.1}, "clipped -0.1 is no share"),
        ({"max": "2"}, "not a finite number"),
        ({"bulk": -1.0}, "bulk -1 is less than 0"),
    ],
)
def test_what_is_no_range_is_refused(tmp_path: Path, edited: dict[str, object], why: str):
    path = tmp_path / "ranges.json"
    Ranges(VERSION, "11", "entropy", 4, {"x": TensorRange(-1.0, 2.0, 2.0, 0.0, "entropy", 4)}).write(path)
    raw = json.loads(path.read_text())
    raw["tensors"]["x"] |= edited
    path.write_text(json.dumps(raw))
    with pytest.raises(DataError, match=why) as refused:
        read_ranges(path)
    assert "tensor 'x'" in str(refused.value)


@pytest.mark.parametrize("version", [0, VERSION + 1])
def test_other_versions_are_refused(tmp_path: Path, version: int):
    path = tmp_path / "ranges.json"
    path.write_text(json.dumps(OLD | {"version": version}))
    with pytest.raises(DataError, match=f"ranges of version {version}; this release reads 1 to {VERSION}"):
        read_ranges(path)


def test_a_file_of_version_1_that_is_damaged_is_refused(tmp_path: Path):
    path = tmp_path / "ranges.json"
    path.write_text(json.dumps(OLD | {"tensors": {"x": {"min": 0.0}}}))
    with pytest.raises(DataError, match="is missing"):
        read_ranges(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw.pop("model_sha256"), "the key 'model_sha256' is missing"),
        (lambda raw: raw["tensors"]["x"].pop("threshold"), "tensor 'x': the key 'threshold' is missing"),
        (lambda raw: raw["tensors"]["x"].update(treshold=1), "tensor 'x': unknown key 'treshold'"),
        (lambda raw: raw["tensors"].update(x=[1, 2]), "tensor 'x': this is not a ranges file"),
        (lambda raw: raw.update(tensors=[]), "tensors: this is not a ranges file"),
        (lambda raw: raw.update(more=1), "unknown key 'more'"),
    ],
)
def test_a_wrong_key_is_named_and_its_tensor(change: Callable[[Any], object], words: str, tmp_path: Path) -> None:
    raw = json.loads(json.dumps(OLD))
    change(raw)
    (tmp_path / "r.json").write_text(json.dumps(raw))
    with pytest.raises(DataError) as caught:
        read_ranges(tmp_path / "r.json")
    assert words in str(caught.value)
    assert "__init__" not in str(caught.value)
