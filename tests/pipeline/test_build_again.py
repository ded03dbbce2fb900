"""A second build of the same name that makes less than the first."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from builds import project
from command_line import done, trtcompress
from onnx_models import small
from trtcompress import assemble
from trtcompress.digests import file_digest
from trtcompress.files import sweep
from trtcompress_engines.triton import check_repository, parse_config
from trtcompress_engines.triton.versions import served_version, versions
from trtcompress_graph.load import read_model


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
    said = build(200)
    switch = f"trtcompress rollback {repository} --model small --version 2"
    assert f"version 2 of small in {repository} has this build and is not served, since a rollback left it" in said
    assert f"to serve it: {switch}" in said
    assert (state(), (model / "tuning.json").is_file()) == ((1, (1, 2), 100), True)
    done(*switch.split()[1:])
    assert state() == (2, (1, 2), 200)


def test_a_new_version_is_checked_with_the_weights_that_lie_beside_its_model(tmp_path, monkeypatch):
    """ONNX data is read from the folder of its model alone, so that what is packed may be no links into the store."""
    entry, build = tmp_path / "store/entry", tmp_path / "out/small"
    repository, file = build / "triton/cpu", "small/1/model.onnx"
    names = (file, f"{file}.data")
    (entry / file).parent.mkdir(parents=True)
    onnx.save(small(), entry / file, save_as_external_data=True, location="model.onnx.data", size_threshold=100)
    repository.mkdir(parents=True)
    left = build / ".packed-old.partial"  # by a build that was killed
    left.mkdir()
    (left / "model.onnx").write_bytes(b"half")
    sweep(build)
    seen = []

    def put(made: Path, where: Path) -> str:
        seen.append((read_model(made / file).digest, where))
        return "told"

    monkeypatch.setattr(assemble, "put_beside", put)
    assert assemble._as_new_version(repository, {repository / name: entry / name for name in names}, build) == "told"
    assert seen == [(read_model(entry / file).digest, repository)]
    assert [path.name for path in build.iterdir()] == ["triton"]
