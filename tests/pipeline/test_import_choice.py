"""`trtcompress import-results`: the engine that is best on the device is shipped, whatever the build took for best."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from command_line import Ran, done, trtcompress
from kits import SECONDS, engine, on_jetpack, results
from small_builds import QUICK, Small, small_classifier, tree
from trtcompress.assemble import only_writer
from trtcompress.digests import file_digest
from trtcompress.kit_import import import_results

ORIN, INT8, FP16 = "jetson-agx-orin", "trt-int8", "trt-fp16"
TARGETS = ("--target", ORIN, "--target", "cpu:float")
AXES = ("--set", "model.inputs={x: {batch: [1, 2, 4]}}", "--set", "metric=[top1]")
GATES = "gates={min_cosine: 0.9, max_metric_drop: 0.5, max_latency_ms: 1000, max_size_mb: 1}"
PACKED = ("--set", "package=[triton, jetson]")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return small_classifier(tmp_path_factory.mktemp("choice"))


@pytest.fixture(scope="module")
def built(small: Small) -> Path:
    folder = small.folder
    made = ("--out", folder / "out", "--store", folder / "store", *QUICK, *PACKED)
    done("build", small.model, "--data", small.data, *TARGETS, *made, *AXES, "--set", GATES, cwd=folder)
    kit = folder / "kit"
    shutil.copytree(folder / "out/small/jetson" / ORIN, kit)
    assert on_jetpack(kit, "build").code == 0
    for slow in ("fp16", "int8"):
        ran = on_jetpack(kit, "validate", *SECONDS, "--output", kit / f"slow-{slow}", STAND_IN_SLOW=slow)
        assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def build(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built / "out/small", tmp_path / "small"))


def told(built: Path, slow: str) -> Path:
    """Results of the kit where that kind of engine took longest."""
    return built / f"kit/slow-{slow}/results.json"


def changed(built: Path, folder: Path, change: Callable[[dict[str, Any]], None], slow: str = "fp16") -> Path:
    """Results in which one thing is another."""
    facts = results(built / "kit", f"slow-{slow}")
    change(facts)
    (folder / "results.json").write_text(json.dumps(facts))
    return folder / "results.json"


def report(build: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((build / "report.json").read_text())
    return facts


def validation(build: Path) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in report(build)["validations"] if one["target"] == ORIN)
    return found


def ships(ran: Ran, build: Path, encoding: str) -> dict[str, Any]:
    """Everything that tells of it agrees on the engine; the target of the result comes back, and why it is shipped."""
    found = validation(build)
    assert found["shipped"] == found["choice"]["encoding"] == encoding
    target: dict[str, Any] = next(one for one in ran.json["targets"] if one["target"] == ORIN)
    assert target == next(one for one in report(build)["targets"] if one["target"] == ORIN)
    (one,) = (c for c in found["candidates"] if c["engine"]["encoding"] == encoding)
    assert (target["size_bytes"], target["sha256"]) == (one["size_bytes"], one["engine"]["sha256"])
    assert Path(target["engine"]).parts[-3:] == (ORIN, encoding, Path(one["engine"]["path"]).name)
    assert target["latency_ms"]["p50"] == one["speeds"][one["headline"]]["engine"]["p50"]
    target["chosen"] = found["choice"]["told"]
    text = (build / "report.md").read_text()
    assert f"### {encoding} (shipped)" in text.split(f"## {ORIN}")[1].split("## cpu")[0]
    assert f"| {ORIN} | {encoding} |" in text
    assert f"- {target['chosen']}\n" in text
    assert target["chosen"].startswith(f"{encoding} is shipped, as measured on ")
    assert "TensorRT 8.5.2" in target["chosen"]
    assert f"note: {target['chosen']}" in ran.err
    suite = ElementTree.parse(build / "junit.xml").getroot().find(f"testsuite[@name='{ORIN}']")
    assert suite is not None
    assert int(suite.get("tests", "")) == len(one["gates"])
    return target


def test_the_engine_that_is_faster_there_is_shipped_and_later_results_switch_back(built: Path, build: Path):
    assert validation(build)["shipped"] == INT8
    first = done("import-results", build, told(built, "fp16"), "--json", cwd=built)
    assert "runs at" in ships(first, build, INT8)["chosen"]
    assert "in place of" not in first.err
    fast = tree(build)
    ran = done("import-results", build, told(built, "int8"), "--json", cwd=built)
    target = ships(ran, build, FP16)
    assert (ran.json["verdict"], {gate["verdict"] for gate in target["gates"]}) == ("pass", {"pass"})
    assert "INT8 does not pay there, the float engine is shipped" in target["chosen"]
    assert f"{FP16} is shipped in place of {INT8}; pack again what was packed elsewhere: trtcompress package" in ran.err
    assert validation(build)["choice"]["as_built"] == INT8
    slow = tree(build)
    again = done("import-results", build, told(built, "int8"), "--json", cwd=built)
    assert (again.json, "in place of" in again.err) == (ran.json, False)
    assert tree(build) == slow
    back = done("import-results", build, told(built, "fp16"), "--json", cwd=built)
    ships(back, build, INT8)
    assert f"{INT8} is shipped in place of {FP16}" in back.err
    assert tree(build) == fast


def test_the_next_steps_are_those_of_the_engine_that_is_shipped(built: Path, build: Path, tmp_path: Path):
    """Its plan lies on the device: what to type until it is served stands in the report and is printed."""
    ran = done("import-results", build, told(built, "int8"), cwd=built)
    (packages,) = (one for one in report(build)["packages"] if one["target"] == ORIN)
    (note,) = packages["notes"]
    assert note.startswith("triton: not packed; 1. copy ")
    assert f"copy model.plan back to {build}/engines/{ORIN}/{FP16}/" in note
    assert INT8 not in note
    assert f"note: {note}" in ran.err
    assert f"- {ORIN}: {note}" in (build / "report.md").read_text()
    plan = build / "engines" / ORIN / FP16 / "model.plan"
    shutil.copyfile(built / f"kit/engines/{FP16}.plan", plan)
    ran = done("import-results", build, told(built, "int8"), "--json", cwd=built)
    target = ships(ran, build, FP16)
    assert (target["engine"].endswith("model.plan"), target["sha256"]) == (True, file_digest(plan))
    (command,) = (line.partition("not packed; ")[2] for line in ran.err.splitlines() if "not packed" in line)
    assert command == f"trtcompress package {build} --target {ORIN} -o repository"
    done(*command.split()[1:], cwd=tmp_path)
    assert (tmp_path / "repository/small/1/model.plan").read_bytes() == plan.read_bytes()
    assert f'"{FP16}"' in (tmp_path / "repository/small/config.pbtxt").read_text()


def test_the_kit_stays_what_it_was(built: Path, build: Path, tmp_path: Path):
    """Its gates are those of the build: results would else be of another kit."""
    for slow in ("int8", "fp16"):
        done("import-results", build, told(built, slow), cwd=built)
        done("package", build, "--format", "jetson", "-o", tmp_path / slow, cwd=built)
        assert tree(tmp_path / slow) == tree(build / "jetson" / ORIN)


def fails(name: str) -> Callable[[dict[str, Any]], None]:
    def change(facts: dict[str, Any]) -> None:
        for parity in engine(facts, name)["parity"]:
            parity["cosine"] = 0.5

    return change


def test_an_engine_that_fails_its_gate_there_gives_way(built: Path, build: Path, tmp_path: Path):
    ran = done("import-results", build, changed(built, tmp_path, fails(INT8)), "--json", cwd=built)
    target = ships(ran, build, FP16)
    assert f"{INT8} fails (min_cosine:logits: 0.5 is 0.4 below the limit of 0.9)" in target["chosen"]
    assert ran.json["verdict"] == "pass"


def test_one_that_is_faster_and_fails_is_not_shipped(built: Path, build: Path, tmp_path: Path):
    path = changed(built, tmp_path, fails(FP16), slow="int8")
    target = ships(done("import-results", build, path, "--json", cwd=built), build, INT8)
    assert f"but {FP16} fails (min_cosine:logits" in target["chosen"]
    assert target["chosen"].endswith(f"{INT8} is shipped all the same")


def test_where_none_passes_the_import_fails(built: Path, build: Path, tmp_path: Path):
    def change(facts: dict[str, Any]) -> None:
        fails(INT8)(facts)
        fails(FP16)(facts)

    ran = trtcompress("import-results", build, changed(built, tmp_path, change), "--json", cwd=built)
    assert (ran.code, ran.json["verdict"]) == (1, "fail")
    assert "no engine passes: min_cosine:logits" in ships(ran, build, INT8)["chosen"]


@pytest.mark.parametrize(("gone", "left"), [(INT8, FP16), (FP16, INT8)])
def test_an_engine_that_was_not_measured_there_is_not_shipped(
    built: Path, build: Path, tmp_path: Path, gone: str, left: str
):
    def change(facts: dict[str, Any]) -> None:
        facts["engines"].remove(engine(facts, gone))

    ran = done("import-results", build, changed(built, tmp_path, change), "--json", cwd=built)
    assert f"{gone} was not measured there" in ships(ran, build, left)["chosen"]
    assert ran.json["verdict"] == "pass"
    ships(done("import-results", build, told(built, "fp16"), "--json", cwd=built), build, INT8)


def test_one_that_passes_goes_before_one_with_gates_that_were_not_measured(built: Path, build: Path, tmp_path: Path):
    def change(facts: dict[str, Any]) -> None:
        engine(facts, INT8)["metrics"] = []

    ran = done("import-results", build, changed(built, tmp_path, change), "--json", cwd=built)
    assert f"of {INT8} was not measured: max_metric_drop" in ships(ran, build, FP16)["chosen"]
    assert ran.json["verdict"] == "pass"


def test_engines_that_were_timed_at_different_batches_alone_are_not_compared(built: Path, build: Path, tmp_path: Path):
    def change(facts: dict[str, Any]) -> None:
        for name, kept in ((INT8, 2), (FP16, 0)):
            one = engine(facts, name)
            one["speeds"] = [one["speeds"][kept]]

    path = changed(built, tmp_path, change, slow="int8")
    target = ships(done("import-results", build, path, "--json", cwd=built), build, INT8)
    assert "was not timed against the other at one batch size" in target["chosen"]


def test_what_another_writes_while_an_import_waits_is_kept(built: Path, build: Path):
    """Results of two devices that are imported at once: neither is lost."""
    with only_writer(build):
        waits = threading.Thread(target=import_results, args=(build, told(built, "int8"), built))
        waits.start()
        time.sleep(0.5)
        facts = report(build)
        facts["devices"] = {"another": {"notes": [], "engines": [], "golden": 1, "device": OTHER}}
        (build / "report.json").write_text(json.dumps(facts))
    waits.join(60)
    assert report(build)["devices"].keys() == {"another", ORIN}
    assert "## On the device: another" in (build / "report.md").read_text()


OTHER = {"model": "another", "release": "", "tensorrt": "8.5.2"}
