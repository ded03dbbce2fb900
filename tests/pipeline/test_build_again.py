"""A second build of the same name that makes less than the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from builds import project
from command_line import done, trtcompress


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
