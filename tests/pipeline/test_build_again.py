"""A second build of the same name that makes less than the first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builds import project
from command_line import done, trtcompress
from trtcompress.digests import file_digest
from trtcompress_engines.triton import check_repository, parse_config
from trtcompress_engines.triton.versions import served_version, versions


@pytest.fixture(scope="module")
def twice(tmp_path_factory) -> tuple[Path, str]:
    """The build folder after a whole build and one that stops early, and what the second said."""
    folder = tmp_path_factory.mktemp("twice")
    config = project(folder)
    command = ("build", config, "--out", folder / "out", "--store", folder / "store")
    done(*command)
    return folder / "out/small", done(*command, "--until", "calibrate").err


def test_it_says_what_it_removed(twice):
    _, err = twice
    (line,) = [line for line in err.splitlines() if line.startswith("removed")]
    assert "engines/cpu" in line
    assert "triton/cpu" in line
    assert "models/simplified" not in line


def test_a_build_that_removes_nothing_says_nothing(tmp_path):
    config = project(tmp_path)
    command = ("build", config, "--out", tmp_path / "out", "--store", tmp_path / "store", "--until", "simplify")
    done(*command)
    assert "removed" not in done(*command).err


@pytest.mark.parametrize("more", [(), ("--target", "cpu")], ids=["all", "one target"])
def test_there_is_nothing_to_package(twice, tmp_path, more):
    ran = trtcompress("package", twice[0], "-o", tmp_path / "repository", *more)
    assert ran.code == 2
    assert "no engine that could be shipped" in ran.err
    assert "hint: build it again without --until" in ran.err


def test_a_repository_with_versions_gets_one_more(tmp_path):
    """What was tuned, and the version that another build was packed as, can be gone back to."""
    config, repository = project(tmp_path), tmp_path / "out/small/triton/cpu"
    model = repository / "small"

    def build(delay: int) -> str:
        where = ("--out", tmp_path / "out", "--store", tmp_path / "store")
        said = done("build", config, *where, "--set", f"triton.max_queue_delay_us={delay}").err
        check_repository(repository)
        files = json.loads((tmp_path / "out/small/manifest.json").read_text())["files"]
        there = [path for path in repository.rglob("*") if path.is_file()]
        assert {name: state["sha256"] for name, state in files.items() if name.startswith("triton/")} == {
            path.relative_to(tmp_path / "out/small").as_posix(): file_digest(path) for path in there
        }
        return said

    def state() -> tuple[int, tuple[int, ...], int]:
        served = parse_config(model / "config.pbtxt")
        delay = served.dynamic_batching.max_queue_delay_microseconds
        return served_version(model, served), versions(model), delay

    build(100)
    (model / "tuning.json").write_text("{}")
    assert "new version" not in build(100)
    assert (state(), (model / "tuning.json").is_file()) == ((1, (1,), 100), True)
    said = build(200)
    assert f"cpu: triton: {repository} serves the engine as a new version, not tuned: small 1 -> 2; back" in said
    assert (state(), (model / "1/tuning.json").is_file()) == ((2, (1, 2), 200), True)
    done("rollback", repository, "--model", "small")
    assert (state(), (model / "tuning.json").is_file()) == ((1, (1, 2), 100), True)
