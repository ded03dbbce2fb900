"""A build that is killed goes on where it died and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from builds import build, manifest, project, promised, start
from kills import kill_campaign
from trtcompress.api import Built
from trtcompress.store import ENTRY


def test_builds_killed_at_random_moments_end_with_the_same_digests(tmp_path: Path):
    """A sample: `make campaign` has hundreds of moments."""
    found = kill_campaign(8, seed=3, folder=tmp_path)
    assert found["moments"] == 8
    assert found["half_written"] == []
    assert found["made_again"] == []
    assert found["different"] == []
    assert found["left_behind"] == []
    assert found["failed"] == []
    assert len(set(found["entries_at_kill"])) >= 3  # they did fall all over the build


def test_the_command_line_goes_on_after_a_kill(tmp_path: Path):
    config = project(tmp_path / "p")
    process = start(config, tmp_path, "--jobs", "1")
    while process.poll() is None and not list(tmp_path.glob(f"store/objects/*/*/{ENTRY}")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finished = {path.parent.name for path in tmp_path.glob(f"store/objects/*/*/{ENTRY}")}
    assert finished
    again = start(config, tmp_path)
    out, err = again.communicate(timeout=840)
    assert again.returncode == 0, err
    assert '"verdict": "pass"' in out
    assert err.count("reused") == len(finished)
    build(config, tmp_path / "peace")
    assert promised(tmp_path / "out/small") == promised(tmp_path / "peace/out/small")


def interrupted(config: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that dies when its files are in place and its manifest is not written."""
    from trtcompress import api

    def die(built: Built, *rest: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(api, "write_reports", die)
        with pytest.raises(KeyboardInterrupt):
            build(config, folder)


def test_what_an_unfinished_build_put_there_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where the next build has another target: nothing of the first one stays."""
    config = project(tmp_path / "p", ["cpu:int8"])
    interrupted(config, tmp_path, monkeypatch)
    folder = tmp_path / "out/small"
    assert (folder / "triton/cpu/small/config.pbtxt").exists()
    assert not (folder / "manifest.json").exists()
    (folder / "models/.model.onnx.0123abcd.partial").write_bytes(b"half")  # what a copy that was killed leaves
    build(config, tmp_path, "targets=[cpu:float]", "package=[]")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*manifest(folder)["files"], "manifest.json", "report.json", "report.md", "junit.xml"}
