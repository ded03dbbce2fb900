"""Several configs in one `trtcompress build`, here: one after another, and one that fails leaves the others alone."""

from __future__ import annotations

import json
from pathlib import Path

from builds import project
from command_line import trtcompress


def test_one_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    bad, good = (project(tmp_path / name, ("cpu:float",), name) for name in ("bad", "good"))
    (bad.parent / "samples.npz").write_bytes(b"no samples")
    places = ("--store", tmp_path / "store", "--out", tmp_path / "out")
    ran = trtcompress("build", bad, good, *places, "--json", "--quiet")
    assert ran.code == 3
    assert ran.err.startswith("error: bad: ")
    assert "samples.npz" in ran.err
    assert json.loads(ran.out)["name"] == "good"
    assert (tmp_path / "out/good/report.json").is_file()
    alone = trtcompress("build", bad, *places, "--quiet")
    assert (alone.code, alone.out) == (3, "")
    assert alone.err.startswith("error: ")
    assert "bad: " not in alone.err.splitlines()[0]


def test_what_each_would_do(tmp_path: Path) -> None:
    configs = [project(tmp_path / name, ("cpu:float",), name) for name in ("one", "two")]
    ran = trtcompress("build", *configs, "--store", tmp_path / "store", "--out", tmp_path / "out", "--dry-run")
    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()].count("compile") == 2
    assert not (tmp_path / "out").exists()
