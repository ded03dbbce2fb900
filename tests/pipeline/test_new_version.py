"""`trtcompress package --new-version` and `trtcompress rollback` on a real build."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from command_chain import chain
from command_line import done, trtcompress
from trtcompress_engines.triton import check_repository, parse_config

SCHEMA = json.loads((Path(__file__).parent / "schemas/rollback.json").read_text())


@pytest.fixture
def build(tmp_path: Path) -> Path:
    return Path(shutil.copytree(chain().folder / "build/exported", tmp_path / "build"))


def package(build: Path, repository: Path, *more: object) -> dict:
    return done("package", build, "--target", "cpu", "-o", repository, *more, "--json").json


def other_build(build: Path) -> None:
    """The same engine with another delay: what is packed differs."""
    manifest = build / "manifest.json"
    told = json.loads(manifest.read_text())
    told["config"]["triton"]["max_queue_delay_us"] = 900
    manifest.write_text(json.dumps(told))


def test_a_second_package_stands_beside_the_first(build: Path, tmp_path: Path):
    repository = tmp_path / "repository"
    told = package(build, repository, "--new-version")
    assert told["packages"][0]["model"] == str(repository / "exported")
    assert "cpu: version of exported 0 -> 1" in told["notes"]
    assert "cpu: version of exported 1 as before" in package(build, repository, "--new-version")["notes"]
    other_build(build)
    assert "cpu: version of exported 1 -> 2" in package(build, repository, "--new-version")["notes"]
    check_repository(repository)
    config = repository / "exported/config.pbtxt"
    assert parse_config(config).dynamic_batching.max_queue_delay_microseconds == 900
    back = done("rollback", repository, "--model", "exported", "--json").json
    jsonschema.Draft202012Validator(SCHEMA).validate(back)
    assert back["models"] == [{"model": "exported", "version": 1, "former": 2, "versions": [1, 2]}]
    assert parse_config(config).dynamic_batching.max_queue_delay_microseconds == 100
    check_repository(repository)


def test_without_the_option_a_model_is_replaced_as_ever(build: Path, tmp_path: Path):
    repository = tmp_path / "repository"
    package(build, repository)
    package(build, repository)
    assert [path.name for path in (repository / "exported").iterdir() if path.is_dir()] == ["1"]


def test_several_targets_have_versions_each(build: Path, tmp_path: Path):
    repository = tmp_path / "repository"
    told = done("package", build, "--new-version", "-o", repository, "--json").json
    assert {Path(p["model"]) for p in told["packages"]} == {repository / t / "exported" for t in ("cpu", "rtx-4090")}
    shutil.copytree(repository / "cpu/exported", repository / "cpu/other")
    ran = trtcompress("rollback", repository / "cpu")
    assert (ran.code, "the repository holds 2 models" in ran.err, "exported, other" in ran.err) == (2, True, True)
    assert (repository / "rtx-4090/exported/1/model.plan").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("rollback", "nowhere", "--model", "m"), "no such model repository"),
        (("rollback", "{repository}", "--model", "exprted"), "has no model 'exprted'"),
        (("rollback", "{repository}", "--model", "exported"), "there is no version before 1"),
        (("rollback", "{repository}", "--model", "exported", "--version", 3), "there is no version 3"),
        (("rollback", "{repository}"), "there is no version before 1"),
        (("package", "{build}", "--keep", 3, "-o", "r"), "--keep does nothing without --new-version"),
        (("package", "{build}", "--serve-check", "-o", "r"), "--serve-check does nothing without --new-version"),
        (("package", "{build}", "--new-version", "--format", "jetson", "-o", "r"), "a kit has no versions"),
    ],
)
def test_what_is_wrong_is_said(build: Path, tmp_path: Path, arguments: tuple[object, ...], told: str):
    repository = tmp_path / "repository"
    package(build, repository)
    ran = trtcompress(*(str(one).format(repository=repository, build=build) for one in arguments), cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err


def test_what_a_server_does_not_load_is_not_switched_to(build: Path, tmp_path: Path):
    """The server of the wheel has the python backend alone."""
    repository = tmp_path / "repository"
    arguments = ("package", build, "--target", "cpu", "--new-version", "--serve-check", "-o", repository)
    package(build, repository, "--format", "triton-python", "--new-version")
    ran = trtcompress(*arguments)
    assert (ran.code, ran.out) == (5, "")
    assert "serve-check fails, so nothing was switched: exported, loads: this server has no backend 'onnx" in ran.err
    assert [path.name for path in (repository / "exported").iterdir() if path.is_dir()] == ["1"]
    other_build(build)
    told = done(*arguments, "--format", "triton-python", "--json").json
    assert "cpu: version of exported 1 -> 2" in told["notes"]
