"""Samples on disk: how many files are open, and types that the model takes."""

from __future__ import annotations

import pickle
import resource
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from trtcompress.recovery.pool import OPEN, fill
from trtcompress_calibration.samples import Sample
from trtcompress_graph.model import TensorSpec


def test_many_shapes_need_few_open_files(tmp_path):
    spec = TensorSpec("ids", "int64", ("batch", "length"))
    lengths = [*range(1, 301)] * 2  # each comes up again when its file was closed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    already = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (already + OPEN + 50, hard))
    try:
        samples = (Sample({"ids": np.full((1, n), place)}) for place, n in enumerate(lengths))
        pool = fill(samples, (spec,), tmp_path, "texts")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(pool.groups) == 300
    assert pool.groups[42].places.tolist() == [42, 342]
    assert pool.read(42, np.array([0, 1]))["ids"][:, 0].tolist() == [42, 342]


def test_a_pool_that_is_filled_again_holds_nothing_of_the_first(tmp_path):
    spec = TensorSpec("x", "float32", ("batch", 2))
    for count in (5, 3):
        pool = fill((Sample({"x": np.full((1, 2), i, np.float32)}) for i in range(count)), (spec,), tmp_path, "x")
    assert (tmp_path / "samples-0-0").stat().st_size == 3 * 2 * 4
    assert pool.read(0, np.array([2]))["x"].tolist() == [[2, 2]]


SPEC = TensorSpec("x", "float32", ("batch", 2))


def labelled(labels: Iterable[object]) -> Iterator[Sample]:
    for label in labels:
        yield Sample({"x": np.zeros((1, 2), np.float32)}, None if label is None else np.asarray(label))


def test_labels_come_back_as_they_were(tmp_path):
    given = [3, [1.5, 2], "ab", "abcd", np.ones((2, 0)), True, np.array({"a": 1}), [[1, 2]], 4]
    pool = pickle.loads(pickle.dumps(fill(labelled(given), (SPEC,), tmp_path, "x")))
    expected = [np.asarray(label) for label in given]
    assert len(pool.labels) == len(given)
    for found in (list(pool.labels), [pool.labels[np.int64(place)] for place in range(len(given))], pool.labels[:]):
        for one, other in zip(found, expected, strict=True):
            assert (one.dtype, one.shape, one.tolist()) == (other.dtype, other.shape, other.tolist())
    assert [pool.labels.shape(place) for place in range(len(given))] == [label.shape for label in expected]
    assert pool.labels[-1] == 4
    with pytest.raises(IndexError):
        pool.labels[len(given)]
    assert pool.labels_of(0, np.array([0, 8, 0])).tolist() == [3, 4, 3]
    assert pool.labels_of(0, np.array([0, 1])) is None


def test_labels_that_not_all_samples_have(tmp_path):
    for given, missing in (([1, None, None], 1), ([None, 2], 0), ([None, None], None)):
        pool = fill(labelled(given), (SPEC,), tmp_path, "x")
        assert (pool.labels, pool.unlabelled) == (None, missing)


def test_masks_stay_on_disk(tmp_path):
    """64 masks of 1 MiB, of which a few at a time are in memory."""
    tracemalloc.start()
    try:
        pool = fill(labelled(np.full((512, 512), place, np.int32) for place in range(64)), (SPEC,), tmp_path, "masks")
        assert sum(int(mask[0, 0]) for mask in pool.labels) == 64 * 63 // 2
        assert pool.labels_of(0, np.array([5, 60]))[:, 511, 511].tolist() == [5, 60]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_halves_become_what_the_model_takes(tmp_path):
    spec = TensorSpec("x", "float32", ("batch", 2))
    pool = fill([Sample({"x": np.full((1, 2), 0.5, np.float16)})], (spec,), tmp_path, "x")
    read = pool.read(0, np.array([0]))["x"]
    assert (read.dtype, read.tolist()) == (np.float32, [[0.5, 0.5]])


def test_a_sample_that_has_no_axes_is_read_as_an_array(tmp_path):
    """The other inputs bring an axis of 1 with them, but no batch can hold two of these."""
    specs = (TensorSpec("gain", "float32", ()), TensorSpec("x", "float32", ("batch", 2)))
    samples = [Sample({"gain": np.array(i, np.float32), "x": np.full((1, 2), i, np.float32)}) for i in range(3)]
    pool = fill(samples, specs, tmp_path, "gains")
    read = pool.read(0, np.array([2]))
    assert isinstance(read["gain"], np.ndarray)
    assert (read["gain"].shape, read["gain"].item(), read["x"].tolist()) == ((), 2, [[2, 2]])
