"""What a build leaves: models, engines, reports, manifest, repository; and what it leaves alone."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest

from builds import build, manifest, project
from trtcompress.api import Built
from trtcompress.asked import encoding_of
from trtcompress.config import BuildConfig
from trtcompress.digests import file_digest
from trtcompress.outcome import BuildResult
from trtcompress_engines.cpu import cpu_features

INT8 = encoding_of("cpu", "int8").name
TARGETS = ["cpu:int8", "rtx-4090:int8", "a100:int8"]
REPORTS = {"report.json", "report.md", "junit.xml", "manifest.json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build of a CPU, a card whose engine is built here, and one whose engine is not; in a git repository."""
    root = tmp_path_factory.mktemp("built")
    config = project(root / "p", TARGETS)
    git = ("git", "-C", str(root / "p"), "-c", "user.name=n", "-c", "user.email=e")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "m")):
        subprocess.run([*git, *command], check=True)
    built, _ = build(config, root, "gates={min_cosine: 0.9, max_latency_ms: 1000, max_size_mb: 10}")
    return Path(built.result.build_dir)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_stage_left_its_files(folder: Path):
    assert (
        files(folder)
        >= {
            "models/exported/model.onnx",
            "models/simplified/model.onnx",
            f"models/{INT8}/model.onnx",
            "models/trt-int8/model.onnx",
            "ranges.json",
            f"plans/{INT8}/precision.json",
            "plans/trt-int8/precision.json",
            f"engines/cpu/{INT8}/model.onnx",
            f"engines/cpu/{INT8}/engine.json",
            "engines/rtx-4090/trt-int8/model.trt-int8.plan",
            "engines/a100/trt-int8/engine.json",
            "triton/cpu/small/config.pbtxt",
            "triton/cpu/small/1/model.onnx",
            "triton/rtx-4090/small/1/model.plan",
        }
        | REPORTS
    )
    assert not any(name.startswith("triton/a100") for name in files(folder))  # there is no engine to serve yet
    assert not any(Path(name).name.startswith(".") for name in files(folder))


def test_the_manifest_is_true(folder: Path):
    facts = manifest(folder)
    assert facts["files"].keys() == files(folder) - REPORTS
    for name, state in facts["files"].items():
        assert state == {"sha256": file_digest(folder / name), "size": (folder / name).stat().st_size}, name


def test_the_manifest_tells_what_made_it(folder: Path):
    facts = manifest(folder)
    project_folder = folder.parents[1] / "p"
    head = subprocess.run(
        ["git", "-C", project_folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert facts["revision"] == head.stdout.strip()
    assert facts["versions"]["onnxruntime"] == version("onnxruntime")
    assert facts["versions"]["numpy"] == version("numpy")
    assert facts["trtcompress"] == version("trtcompress")
    assert facts["python"] == platform.python_version()
    assert facts["targets"] == ["cpu", "rtx-4090", "a100"]
    assert facts["machine"]["cpu"] == json.loads(json.dumps(asdict(cpu_features())))
    config = BuildConfig.model_validate(facts["config"])
    assert (config.name, config.gates.max_size_mb, config.quantize.method) == ("small", 10, "minmax")
    assert all(len(digest) == 64 for digest in facts["inputs"].values())
    assert len({step["fingerprint"] for step in facts["stages"]}) == len(facts["stages"])


def test_the_manifest_says_which_engines_are_reproducible(folder: Path):
    engines = {engine["target"]: engine for engine in manifest(folder)["engines"]}
    assert {target: engine["reproducible"] for target, engine in engines.items()} == {
        "cpu": True,
        "rtx-4090": False,
        "a100": True,
    }
    for target, engine in engines.items():
        graph = folder / "engines" / target / engine["encoding"] / "model.onnx"
        assert engine["graph_sha256"] == file_digest(graph)


def test_changes_of_the_project_stand_beside_the_revision(tmp_path: Path):
    config = project(tmp_path / "p")
    built, _ = build(config, tmp_path)
    assert manifest(Path(built.result.build_dir))["revision"] is None
    git = ("git", "-C", str(tmp_path / "p"), "-c", "user.name=n", "-c", "user.email=e")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "m")):
        subprocess.run([*git, *command], check=True)
    config.write_text(config.read_text() + "# changed\n")
    built, _ = build(config, tmp_path)
    assert manifest(Path(built.result.build_dir))["revision"].endswith("+changes")


def test_engine_folders_stand_for_themselves(folder: Path):
    """`validate` and `package` take them alone, wherever the build folder was moved to."""
    from trtcompress.compiling import read_engine

    for target, encoding in (("cpu", INT8), ("rtx-4090", "trt-int8"), ("a100", "trt-int8")):
        engine = read_engine(folder / "engines" / target / encoding, folder)
        assert engine.target == target
        assert engine.path.is_relative_to(folder)
        assert engine.digest == file_digest(engine.path)
        assert engine.built == (target != "a100")


def test_the_report_holds_the_result_and_what_was_measured(folder: Path):
    facts = json.loads((folder / "report.json").read_text())
    result = BuildResult.model_validate({key: facts[key] for key in BuildResult.model_fields})
    assert result.verdict == "not_measured"
    by_target = {target.target: target for target in result.targets}
    cpu, rtx = by_target["cpu"], by_target["rtx-4090"]
    assert cpu.latency_ms is not None
    assert 0 < cpu.latency_ms.p50 <= cpu.latency_ms.p90 <= cpu.latency_ms.p99
    assert (rtx.latency_ms, rtx.speedup) == (None, None)
    for target in by_target.values():
        path = Path(target.engine)
        assert (path.stat().st_size, file_digest(path)) == (target.size_bytes, target.sha256)
    for validation in facts["validations"]:
        for candidate in validation["candidates"]:
            assert not Path(candidate["engine"]["path"]).is_absolute()
            assert (folder / candidate["engine"]["path"]).is_file()
    assert {stage["stage"] for stage in facts["stages"]} >= {"export", "calibrate", "quantize", "compile", "validate"}


def test_the_report_for_people_names_every_target_and_gate(folder: Path):
    text = (folder / "report.md").read_text()
    facts = json.loads((folder / "report.json").read_text())
    assert text.startswith("# small: not measured\n")
    for target in facts["targets"]:
        assert f"## {target['target']}\n" in text
        for gate in target["gates"]:
            assert f"| {gate['gate']} | {gate['limit']:.4g} |" in text
    assert "emulated" in text


def test_junit_has_a_case_for_each_gate(folder: Path):
    facts = json.loads((folder / "report.json").read_text())
    suites = ElementTree.parse(folder / "junit.xml").getroot()
    assert [suite.get("name") for suite in suites] == ["cpu", "rtx-4090", "a100"]
    for suite, target in zip(suites, facts["targets"], strict=True):
        verdicts = {gate["gate"]: gate["verdict"] for gate in target["gates"]}
        cases = {case.get("name"): [child.tag for child in case] for case in suite}
        tags = {"pass": [], "fail": ["failure"], "not_measured": ["skipped"]}
        assert cases == {name: tags[verdict] for name, verdict in verdicts.items()}
        assert suite.get("tests") == str(len(verdicts))
        assert suite.get("failures") == "0"
    skipped = {case.get("name") for case in suites[1] if case.find("skipped") is not None}
    assert any("latency" in str(name) for name in skipped)  # a card that is not here is not measured, never passed
    assert all(case.find("skipped") is None for case in suites[0])


def failing(tmp_path: Path) -> Built:
    return build(project(tmp_path / "p"), tmp_path, "gates={min_cosine: 1.0, max_latency_ms: 0.000001}")[0]


def test_a_failed_gate_stands_in_every_report(tmp_path: Path):
    built = failing(tmp_path)
    assert built.result.verdict == "fail"
    folder = Path(built.result.build_dir)
    [suite] = ElementTree.parse(folder / "junit.xml").getroot()
    failed = [case for case in suite if case.find("failure") is not None]
    assert suite.get("failures") == str(len(failed))
    assert any("latency" in str(case.get("name")) for case in failed)
    messages = [case.find("failure").get("message", "") for case in failed]
    assert all("limit" in message for message in messages)
    text = (folder / "report.md").read_text()
    assert text.startswith("# small: fail\n")
    assert text.count("| fail |") == len(failed)
    assert (folder / "triton/cpu/small/config.pbtxt").exists()  # packed all the same: the exit code decides


def test_a_target_that_left_the_config_leaves_the_folder(tmp_path: Path):
    config = project(tmp_path / "p", ["cpu:int8", "a100:int8"])
    build(config, tmp_path, "package=[triton, triton-python]")
    folder = tmp_path / "out/small"
    (folder / "notes.txt").write_text("mine")
    (folder / "engines/a100/trt-int8/notes.txt").write_text("mine")
    (folder / "triton/cpu/other-model").mkdir()
    build(config, tmp_path, "targets=[cpu:int8]")
    assert files(folder) == {
        *manifest(folder)["files"],
        *REPORTS,
        "notes.txt",
        "engines/a100/trt-int8/notes.txt",
    }
    assert not any("a100" in name or "triton-python" in name for name in manifest(folder)["files"])
    assert (folder / "triton/cpu/other-model").is_dir()
    assert not (folder / "triton-python").exists()
    assert not (folder / "models/trt-int8").exists()


def test_until_leaves_what_was_made_so_far(tmp_path: Path):
    config = project(tmp_path / "p")
    built, _ = build(config, tmp_path, until="quantize")
    folder = Path(built.result.build_dir)
    assert f"models/{INT8}/model.onnx" in files(folder)
    assert not (folder / "engines").exists()
    assert built.result.targets == ()
    build(config, tmp_path)
    assert f"engines/cpu/{INT8}/engine.json" in files(folder)


def test_files_that_were_changed_or_lost_come_back(tmp_path: Path):
    config = project(tmp_path / "p")
    build(config, tmp_path)
    folder = tmp_path / "out/small"
    facts = manifest(folder)
    (folder / "ranges.json").write_text("{}")
    (folder / "models/exported/model.onnx").unlink()
    (folder / f"engines/cpu/{INT8}/engine.json").write_text("{}")
    _, heard = build(config, tmp_path)
    assert heard.worked == []
    assert manifest(folder)["files"] == facts["files"]
    assert {name: file_digest(folder / name) for name in facts["files"]} == {
        name: state["sha256"] for name, state in facts["files"].items()
    }


def test_changing_the_build_does_not_change_the_store(tmp_path: Path):
    config = project(tmp_path / "p")
    build(config, tmp_path)
    path = tmp_path / "out/small/models/exported/model.onnx"
    path.write_bytes(b"changed in place")
    _, heard = build(config, tmp_path / "elsewhere", store=tmp_path / "store")
    assert heard.worked == []
    assert (tmp_path / "elsewhere/out/small/models/exported/model.onnx").read_bytes() != b"changed in place"


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"files": 3}', '{"files": [3]}', '{"files": ["../../keep", "/keep", "models", "link/keep"]}', "\x00"],
)
def test_a_manifest_that_was_tampered_with_removes_nothing_outside(tmp_path: Path, text: str):
    config = project(tmp_path / "p")
    build(config, tmp_path)
    folder = tmp_path / "out/small"
    (tmp_path / "keep").write_text("mine")
    (tmp_path / "away").mkdir()
    (tmp_path / "away/keep").write_text("mine")
    (folder / "link").symlink_to(tmp_path / "away")
    (folder / "manifest.json").write_text(text)
    build(config, tmp_path)
    assert (tmp_path / "keep").exists()
    assert (tmp_path / "away/keep").exists()
    assert manifest(folder)["name"] == "small"
