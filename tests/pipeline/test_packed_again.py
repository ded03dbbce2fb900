"""Repositories in a build folder that follow the engine that is shipped: what is served there counts, and stays."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from command_line import done, refused, trtcompress
from kits import STAND_INS
from small_builds import small_classifier
from ssh_server import MISSING, SSHD, serving
from trtcompress.digests import file_digest
from trtcompress.kit_import import import_results
from trtcompress_engines.triton import check_repository, parse_config
from trtcompress_engines.triton.versions import served_version, versions

pytestmark = pytest.mark.skipif(SSHD is None, reason=MISSING)

CONFIG = """\
name: small
model: {source: small.onnx, inputs: {x: {batch: [1, 2, 4]}}}
data: {calibration: {source: samples.npz}}
metric: [top1]
gates: {max_metric_drop: 1, min_cosine: 0.5, max_latency_ms: 1000}
targets: [h100]
measure: {seconds: 0.01}
package: [triton]
"""
MODULE = "post_of_packed_again"
"""No other test has a module of this name, which one that ran before in this process would have left on the path."""

POST = "def answer(outputs):\n    return {'best': outputs['logits'].argmax(1)}\n"
PYTHON = f"""\
#!/bin/sh
# Python of a machine with TensorRT and pycuda.
export PYTHONPATH="$PYTHONPATH:{STAND_INS}" STAND_IN_TENSORRT=10.13.2
exec {sys.executable} "$@"
"""
INT8, FP16 = "trt-int8", "trt-fp16"


@dataclass(frozen=True)
class Project:
    """Configs with the model and samples beside them, and what their builds came to on a machine with the card."""

    folder: Path
    out: Path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two builds, started from a folder that is not the config's: the model alone, and with a function behind it."""
    folder, elsewhere = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("elsewhere")
    small_classifier(folder)
    (folder / f"{MODULE}.py").write_text(POST)
    (folder / "small.yaml").write_text(CONFIG)
    (folder / "steps.yaml").write_text(
        CONFIG.replace("name: small", "name: steps") + f"triton: {{postprocess: '{MODULE}:answer'}}\n"
    )
    with pytest.MonkeyPatch.context() as monkeypatch, serving(folder / "ssh", monkeypatch) as server:
        server.program("python3", PYTHON)
        for name in ("small", "steps"):
            made = ("--out", folder / "out", "--store", folder / "store", "--remote", server.address)
            done("build", folder / f"{name}.yaml", *made, cwd=elsewhere)
    return Project(folder, folder / "out")


@pytest.fixture
def build(project: Project, tmp_path: Path) -> Path:
    return Path(shutil.copytree(project.out / "small", tmp_path / "small"))


@pytest.fixture
def steps(project: Project, tmp_path: Path) -> Path:
    return Path(shutil.copytree(project.out / "steps", tmp_path / "steps"))


def told(build: Path, faster: str) -> Path:
    """Results of the device in which that engine is a hundred times as fast as the others."""
    facts = json.loads((build / "devices/h100/results.json").read_text())
    for one in facts["engines"]:
        for speed in one["speeds"]:
            times = 0.01 if one["encoding"] == faster else 1
            speed["engine"] |= {name: speed["engine"][name] * times for name in ("p50", "p90", "p99")}
            speed["engine"]["throughput"] /= times
            speed["speedup"] /= times
    path = build.parent / f"{faster}.json"
    path.write_text(json.dumps(facts))
    return path


def imports(build: Path, faster: str, base: Path) -> str:
    """What an import of such results says."""
    ran = done("import-results", build, told(build, faster), cwd=base)
    assert report(build)["validations"][0]["shipped"] == faster
    return ran.err


def report(build: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((build / "report.json").read_text())
    return facts


def notes(build: Path) -> list[str]:
    (entry,) = report(build)["packages"]
    found: list[str] = entry["notes"]
    return found


def served(build: Path, model: str = "small") -> str:
    """The engine that is served."""
    folder = build / "triton/h100" / model
    plan = (folder / str(now(folder)) / "model.plan").read_bytes()
    (name,) = (p.parent.name for p in (build / "engines/h100").glob("*/model.plan") if p.read_bytes() == plan)
    return name


def now(folder: Path) -> int:
    return served_version(folder, parse_config(folder / "config.pbtxt"))


def manifest_is_whole(build: Path) -> None:
    files = json.loads((build / "manifest.json").read_text())["files"]
    there = {path.relative_to(build).as_posix(): path for path in (build / "triton").rglob("*") if path.is_file()}
    assert {name for name in files if name.startswith("triton/")} == there.keys()
    assert all(files[name]["sha256"] == file_digest(path) for name, path in there.items())


def other(encoding: str) -> str:
    return FP16 if encoding == INT8 else INT8


def new_version(build: Path, encoding: str, base: Path) -> None:
    """Results ship that engine; it is put by hand beside the one that was served."""
    plan = build / "engines/h100" / encoding / "model.plan"
    plan.rename(build.parent / "aside.plan")
    assert "serves another engine" in imports(build, encoding, base)
    (build.parent / "aside.plan").rename(plan)
    done("package", build, "--new-version", "-o", build / "triton/h100", cwd=base)


def test_the_version_that_is_served_counts_and_those_before_it_stay(project: Project, build: Path):
    first = served(build)
    new_version(build, other(first), project.folder)
    repository, model = build / "triton/h100", build / "triton/h100/small"
    assert (now(model), served(build)) == (2, other(first))
    said = imports(build, first, project.folder)  # version 1 has that plan, and is not served
    assert (now(model), versions(model), served(build)) == (3, (2, 3), first)
    assert "small 2 -> 3" in said
    assert f"trtcompress rollback {repository} --model small" in said
    manifest_is_whole(build)
    check_repository(repository)
    imports(build, first, project.folder)
    assert (now(model), notes(build)) == (3, [])
    done("rollback", repository, "--model", "small")
    assert served(build) == other(first)
    imports(build, first, project.folder)
    assert (now(model), served(build)) == (4, first)


def test_what_was_tuned_stays_with_its_version(project: Project, build: Path):
    first, model = served(build), build / "triton/h100/small"
    (model / "tuning.json").write_text('{"tuned": true}')
    tuned = (model / "config.pbtxt").read_text()
    said = imports(build, other(first), project.folder)
    assert (versions(model), now(model), served(build)) == ((1, 2), 2, other(first))
    assert (model / "1/tuning.json").read_text() == '{"tuned": true}'
    assert (model / "1/config.pbtxt").read_text() == tuned
    assert not (model / "tuning.json").exists()
    assert "not tuned" in said
    done("rollback", build / "triton/h100", "--model", "small")
    assert served(build) == first
    assert (model / "tuning.json").is_file()


def test_a_model_without_versions_is_exchanged(project: Project, build: Path):
    first, model = served(build), build / "triton/h100/small"
    imports(build, other(first), project.folder)
    assert (versions(model), served(build), notes(build)) == ((1,), other(first), [])
    manifest_is_whole(build)


def test_an_ensemble_follows_from_any_folder_and_keeps_its_versions(project: Project, steps: Path, tmp_path: Path):
    """The project of the fixture was built from elsewhere: what the function was tried on was found there."""
    first, repository = served(steps, "steps_model"), steps / "triton/h100"
    import_results(steps, told(steps, other(first)), project.folder)
    assert served(steps, "steps_model") == other(first)
    new_version(steps, first, project.folder)
    assert served(steps, "steps_model_v2") == first
    imports(steps, other(first), project.folder)
    assert now(repository / "steps") == 3
    asked = {step.model_name for step in parse_config(repository / "steps/config.pbtxt").ensemble_scheduling.step}
    assert asked == {"steps_model_v3", "steps_postprocess_v3"}
    assert served(steps, "steps_model_v3") == other(first)
    check_repository(repository)
    done("rollback", repository, "--model", "steps")
    assert now(repository / "steps") == 2
    check_repository(repository)


def test_why_a_repository_was_not_packed_is_told_with_what_to_do(project: Project, steps: Path, tmp_path: Path):
    first = served(steps, "steps_model")
    said = imports(steps, other(first), tmp_path)
    why = f"it was not packed by itself: '{MODULE}:answer', which the build had for its postprocess, is not there"
    assert why in said, said
    assert "run this in the folder of the config" in said
    assert served(steps, "steps_model") == first


def test_an_engine_that_is_gone_does_not_keep_results_out(project: Project, build: Path):
    first = served(build)
    shutil.rmtree(build / "engines")
    ran = done("import-results", build, told(build, other(first)), "--json", cwd=project.folder)
    (validation,) = report(build)["validations"]
    assert validation["shipped"] == other(first)
    (note,) = notes(build)
    assert note.startswith(f"triton: {build}/triton/h100 serves another engine than {other(first)}; ")
    assert f"cannot be read at {build}/engines/h100/{other(first)}/engine.json: there is no engine here" in note
    assert f"note: {note}" in ran.err


def changed(build: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((build / "manifest.json").read_text())
    change(manifest["config"])
    (build / "manifest.json").write_text(json.dumps(manifest))


def with_notes(build: Path, *told: str) -> None:
    facts = report(build)
    facts["packages"][0] |= {"notes": list(told), "folders": {}}
    (build / "report.json").write_text(json.dumps(facts))


def test_two_notes_on_one_form_stay_two(project: Project, build: Path):
    with_notes(build, "jetson: one", "triton: not packed", "jetson: another")
    imports(build, served(build), project.folder)
    assert notes(build)[:2] == ["jetson: one", "jetson: another"]
    assert notes(build)[2].startswith("triton: not packed; trtcompress package ")


def test_no_command_is_printed_that_cannot_work(project: Project, build: Path):
    changed(build, lambda config: config.update(package=["triton", "triton-python"]))
    with_notes(build, "triton: not packed", "triton-python: not packed")
    said = imports(build, served(build), project.folder)
    assert "triton-python: not packed; triton-python does not serve an engine of TensorRT" in said
    assert "--format triton-python" not in said
    towers = {"one": ["logits"], "other": ["logits"]}
    changed(build, lambda config: config["triton"].update(towers=towers))
    said = imports(build, served(build), project.folder)
    assert "triton: not packed; triton.towers needs an engine of each tower" in said
    assert "trtcompress package" not in said


def test_a_build_that_runs_again_keeps_versions(
    project: Project, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, model = served(build), build / "triton/h100/small"
    new_version(build, other(first), project.folder)
    again = ("build", project.folder / "small.yaml", "--out", tmp_path, "--store", project.folder / "store")
    done(*again)  # nothing is packed for the card here
    assert (versions(model), served(build)) == ((1, 2), other(first))
    with serving(tmp_path / "ssh", monkeypatch) as server:
        server.program("python3", PYTHON)
        for _ in range(2):
            done(*again, "--remote", server.address)
            assert served(build) == report(build)["validations"][0]["shipped"]
            check_repository(build / "triton/h100")
            manifest_is_whole(build)
    assert now(model) == (2 if served(build) == other(first) else 3)
    done("rollback", build / "triton/h100", "--model", "small")
    check_repository(build / "triton/h100")


def test_towers_and_remote_are_refused_before_work(project: Project, tmp_path: Path):
    towers = ("--set", "triton={towers: {one: [logits], other: [logits]}}")
    made = ("--out", tmp_path / "out", "--store", tmp_path / "store", "--remote", "me@nowhere.invalid")
    ran = trtcompress("build", project.folder / "small.yaml", *made, *towers)
    refused(ran, 2, "an engine of each tower")
    assert "triton.towers" in ran.err
    assert not (tmp_path / "out").exists()
