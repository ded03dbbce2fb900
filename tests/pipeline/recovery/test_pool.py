"""Samples on disk: how many files are open, and types that the model takes."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np

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


def test_halves_become_what_the_model_takes(tmp_path):
    spec = TensorSpec("x", "float32", ("batch", 2))
    pool = fill([Sample({"x": np.full((1, 2), 0.5, np.float16)})], (spec,), tmp_path, "x")
    read = pool.read(0, np.array([0]))["x"]
    assert (read.dtype, read.tolist()) == (np.float32, [[0.5, 0.5]])
