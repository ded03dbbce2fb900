"""`trtcompress import-results`: what a device measured joins the report, and its gates are applied."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from command_line import done, trtcompress
from kits import SECONDS, on_jetpack, results
from small_builds import QUICK, Small, small_classifier, tree
from trtcompress.kit_import import import_results
from trtcompress.remote_report import tell_in_report
from trtcompress_engines.metrics import evaluate

TARGETS = ("--target", "jetson-agx-orin", "--target", "cpu:float")
AXES = ("--set", "model.inputs={x: {batch: [1, 2, 4]}}")
GATES = "gates={min_cosine: 0.9, max_metric_drop: 0.5, max_latency_ms: 1000, min_speedup: 0.001, max_size_mb: 1}"
DEVICE = {"model": "x86_64", "release": "", "tensorrt": "8.5.2", "cuda": "pycuda", "python": "3.8.0", "numpy": "1.24"}
METRIC = "def flipped(outputs, labels):\n    return (outputs['logits'].argmax(1) != labels).astype(float)\n"


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[Path, Path]:
    """A build and the results of its kit."""
    folder = tmp_path_factory.mktemp("import")
    small = small_classifier(folder)
    build = build_in(folder, small, "--set", GATES, "--set", "metric=[top1]")
    return build, measure(build, folder / "kit")


def build_in(folder: Path, small: Small, *more: str) -> Path:
    made = ("--out", folder / "out", "--store", folder / "store")
    done("build", small.model, "--data", small.data, *TARGETS, *made, *AXES, *QUICK, *more, cwd=folder)
    return folder / "out/small"


def measure(build: Path, kit: Path) -> Path:
    done("package", build, "--format", "jetson", "-o", kit)
    assert on_jetpack(kit, "build").code == 0
    on_jetpack(kit, "validate", *SECONDS)
    return kit / "results/results.json"


@pytest.fixture
def build(measured, tmp_path) -> Path:
    return Path(shutil.copytree(measured[0], tmp_path / "small"))


def changed(measured: tuple[Path, Path], folder: Path, **facts: Any) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps({**json.loads(measured[1].read_text()), **facts}))
    return path


def test_the_gates_are_applied_and_the_report_tells_of_the_device(measured, build):
    before = json.loads((build / "report.json").read_text())
    assert before["verdict"] == "not_measured"
    ran = done("import-results", build, measured[1], "--json")
    told = next(target for target in ran.json["targets"] if target["target"] == "jetson-agx-orin")
    verdicts = {gate["gate"]: gate["verdict"] for gate in told["gates"]}
    expected = ["max_metric_drop:top1", "min_cosine:logits", "max_latency_ms:batch1", "max_size_mb"]
    expected += [f"min_speedup:batch{size}" for size in (1, 2, 4)]
    expected += ["max_metric_drop:top1[emulated]", "min_cosine:logits[emulated]"]
    assert verdicts == dict.fromkeys(expected, "pass")
    assert ran.json["verdict"] == "pass"
    facts = json.loads((build / "report.json").read_text())
    assert {name: facts[name] for name in ran.json} == ran.json
    device = facts["devices"]["jetson-agx-orin"]
    speed = json.loads(measured[1].read_text())["engines"][1]["speeds"][1]
    for side in ("engine", "reference"):
        speed[side]["gpu"] = None  # a kit does not tell its parts
    assert device["engines"][1]["speeds"][1] == speed
    assert told["latency_ms"] == {name: speed["engine"][name] for name in ("p50", "p90", "p99")}
    report = (build / "report.md").read_text()
    assert "## On the device: jetson-agx-orin" in report
    assert "TensorRT 8.5.2; 24 golden samples" in report
    assert f"{speed['engine']['p50']:.3g} ms, batch 2" in report.splitlines()[4]
    suite = ElementTree.parse(build / "junit.xml").getroot().find("testsuite[@name='jetson-agx-orin']")
    assert suite is not None
    assert (suite.get("skipped"), suite.get("failures")) == ("0", "0")


def test_the_metric_is_that_of_the_build(measured, build):
    done("import-results", build, measured[1])
    hits = json.loads(measured[1].read_text())["engines"][1]["metrics"][0]
    facts = json.loads((build / "report.json").read_text())["validations"][0]["candidates"][0]["metrics"][0]
    assert facts["value"] == sum(hits["hits"]) / 24
    assert facts["samples"] == 24
    import numpy as np

    # scores that make exactly those hits, judged by the code of the build
    both = [
        {"o": np.stack([1 - np.array(one), np.array(one)], 1) * 1.0} for one in (hits["reference_hits"], hits["hits"])
    ]
    expected = evaluate("top1", *both, np.ones(24, int))
    assert (facts["ci"], facts["drop"], facts["drop_ci"]) == (list(expected.ci), expected.drop, list(expected.drop_ci))


def test_the_same_results_twice_change_nothing_and_new_ones_replace_them(measured, build, tmp_path):
    done("import-results", build, measured[1])
    once = tree(build)
    done("import-results", build, measured[1])
    assert tree(build) == once
    engines = json.loads(measured[1].read_text())["engines"]
    for engine in engines:
        for parity in engine["parity"]:
            parity["cosine"] = 0.5
    ran = trtcompress("import-results", build, changed(measured, tmp_path, engines=engines), "--json")
    assert (ran.code, ran.json["verdict"]) == (1, "fail")
    failed = [gate["gate"] for target in ran.json["targets"] for gate in target["gates"] if gate["verdict"] == "fail"]
    assert failed == ["min_cosine:logits"]
    done("import-results", build, measured[1])
    assert tree(build) == once


@pytest.mark.parametrize(
    ("facts", "code", "told"),
    [
        ({"backend": "onnxruntime"}, 3, "not of the device"),
        ({"device": {**DEVICE, "tensorrt": "", "cuda": ""}}, 3, "these results contradict themselves"),
        ({"version": 2}, 3, "not what ./validate of a kit writes: version"),
        ({"engines": []}, 3, "engines"),
        ({"kit": {"name": "small", "target": "jetson-thor", "digest": ""}}, 2, "no target 'jetson-thor'"),
    ],
)
def test_results_that_do_not_count_are_refused(measured, build, tmp_path, facts, code, told):
    before = tree(build)
    ran = trtcompress("import-results", build, changed(measured, tmp_path, **facts))
    assert (ran.code, told in ran.err) == (code, True), ran.err
    assert tree(build) == before


def test_a_kit_that_the_build_does_not_know_is_told(measured, build, tmp_path):
    known = json.loads(measured[1].read_text())["kit"]
    told = "the kit of these results is none that this build folder has noted"
    assert told not in done("import-results", build, measured[1]).err
    path = changed(measured, tmp_path, kit={**known, "digest": "0" * 64})
    assert told in done("import-results", build, path).err


def parity(**facts: Any) -> Any:
    return lambda engine: engine["parity"][0].update(facts)


def speed(side: str, **facts: Any) -> Any:
    return lambda engine: engine["speeds"][0][side].update(facts)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (parity(cosine=5.0), "a cosine of 5"),
        (parity(snr_db=1e6), "a signal-to-noise ratio of 1e+06 dB"),
        (parity(max_abs=-1.0), "a greatest difference below 0"),
        (parity(max_rel=float("nan")), "finite number"),
        (parity(output="other"), "these results are of the outputs other"),
        (lambda engine: engine["parity"].append(engine["parity"][0]), "'logits' is there 2 times"),
        (lambda engine: engine["metrics"].append(engine["metrics"][0]), "'top1' is there 2 times"),
        (lambda engine: engine["metrics"][0]["hits"].pop(), "23 samples of the engine and 24 of the reference"),
        (lambda engine: [hits.append(1) for hits in engine["metrics"][0].values() if isinstance(hits, list)], "of 24"),
        (lambda engine: engine["speeds"].append(engine["speeds"][0]), "is there 2 times"),
        (speed("engine", p50=-1.0), "latencies that do not rise"),
        (speed("engine", p90=1e-9), "latencies that do not rise"),
        (speed("reference", throughput=0.0), "a throughput that is not above 0"),
        (speed("reference", batch=9), "the reference's is of batch 9"),
        (lambda engine: engine["speeds"][0].update(speedup=0.0), "not above 0"),
    ],
)
def test_what_no_device_can_have_measured_is_refused(measured, build, tmp_path, change, told):
    before = tree(build)
    engines = json.loads(measured[1].read_text())["engines"]
    change(engines[1])
    ran = trtcompress("import-results", build, changed(measured, tmp_path, engines=engines))
    assert (ran.code, told in ran.err, "Traceback" in ran.err) == (3, True, False), ran.err
    assert tree(build) == before


def test_an_engine_that_was_measured_twice_is_refused(measured, build, tmp_path):
    engines = json.loads(measured[1].read_text())["engines"]
    ran = trtcompress("import-results", build, changed(measured, tmp_path, engines=[*engines, engines[0]]))
    assert (ran.code, "is there 2 times" in ran.err) == (3, True), ran.err


def test_results_of_a_kit_of_an_earlier_build_are_refused(measured, build):
    digest = json.loads(measured[1].read_text())["kit"]["digest"]
    assert list(json.loads((build / "kits.json").read_text())) == [digest]
    text = (build / "manifest.json").read_text()
    for section, held in (("inputs", {"evaluation": "other"}), ("config", {"tensorrt": {"optimization_level": 5}})):
        manifest = json.loads(text)
        manifest[section] |= held
        (build / "manifest.json").write_text(json.dumps(manifest))
        before = tree(build)
        ran = trtcompress("import-results", build, measured[1])
        assert (ran.code, "of a kit of an earlier build" in ran.err, "--format jetson" in ran.err) == (3, True, True)
        assert tree(build) == before
    (build / "manifest.json").write_text(text)
    done("import-results", build, measured[1])
    (build / "manifest.json").write_text(json.dumps(manifest))
    (build / "kits.json").unlink()  # as of a version that did not note them
    done("import-results", build, measured[1])


@pytest.mark.parametrize(
    ("model", "doubted"), [("x86_64", True), ("aarch64", False), ("NVIDIA Jetson AGX Orin", False)]
)
def test_a_jetson_that_is_none_is_doubted(measured, build, tmp_path, model: str, doubted: bool):
    results = changed(measured, tmp_path, device={**DEVICE, "model": model})
    _, notes = import_results(build, results)
    told = "these results name x86_64, which is no jetson-agx-orin: were they measured on the device?"
    assert (told in notes) == doubted
    assert (told in (build / "report.md").read_text()) == doubted


def test_who_brings_plans_writes_all_reports(measured, build):
    done("import-results", build, measured[1])
    written = (build / "junit.xml").read_bytes()
    (build / "junit.xml").write_text("of an earlier record")
    tell_in_report(build, "jetson-agx-orin", {})
    assert (build / "junit.xml").read_bytes() == written


def test_results_of_another_build_are_refused(measured, build, tmp_path):
    engines = json.loads(measured[1].read_text())["engines"]
    engines[1]["graph_sha256"] = "0" * 64
    ran = trtcompress("import-results", build, changed(measured, tmp_path, engines=engines))
    assert (ran.code, "of another build" in ran.err) == (3, True)
    (tmp_path / "cut.json").write_bytes(measured[1].read_bytes()[:-100])
    assert trtcompress("import-results", build, tmp_path / "cut.json").code == 3
    assert trtcompress("import-results", build, tmp_path / "gone.json").code == 2
    assert trtcompress("import-results", tmp_path, measured[1]).code == 2


def test_an_engine_that_the_device_refused_stays_not_measured_and_is_not_shipped(measured, build, tmp_path):
    before = json.loads((build / "report.json").read_text())["validations"][0]["candidates"][0]
    engines = [one for one in json.loads(measured[1].read_text())["engines"] if one["encoding"] != "trt-int8"]
    ran = done("import-results", build, changed(measured, tmp_path, engines=engines), "--json")
    assert ran.json["verdict"] == "pass"
    validation = json.loads((build / "report.json").read_text())["validations"][0]
    after = validation["candidates"]
    assert (after[0], before["verdict"]) == (before, "not_measured")
    assert (after[1]["verdict"], validation["shipped"]) == ("pass", "trt-fp16")
    assert "trt-int8 was not measured" in (build / "report.md").read_text()
    once = tree(build)
    done("import-results", build, measured[1])
    done("import-results", build, tmp_path / "results.json")
    assert tree(build) == once
    ran = trtcompress("import-results", build, changed(measured, tmp_path, engines=engines[:1]))
    assert (ran.code, "none of the engines" in ran.err) == (3, True)


def test_a_metric_of_the_users_own_stays_not_measured_where_the_device_kept_no_outputs(tmp_path):
    small = small_classifier(tmp_path)
    (tmp_path / "mine.py").write_text(METRIC)
    build = build_in(tmp_path, small, "--set", "metric=[top1, 'mine:flipped']")
    path = measure(build, tmp_path / "kit")
    assert [metric["name"] for metric in json.loads(path.read_text())["engines"][1]["metrics"]] == ["top1"]
    told = json.loads(path.read_text())
    for engine in told["engines"]:
        engine["outputs"] = []
    path.write_text(json.dumps(told))
    ran = done("import-results", build, path, "--json")
    gates = next(target for target in ran.json["targets"] if target["target"] == "jetson-agx-orin")["gates"]
    verdicts = {gate["gate"]: gate["verdict"] for gate in gates}
    assert verdicts["max_metric_drop:mine:flipped"] == "not_measured"
    assert verdicts["max_metric_drop:top1"] == verdicts["min_cosine:logits"] == "pass"
    assert ran.json["verdict"] == "not_measured"
    assert trtcompress("import-results", build, path, "--strict").code == 1


def test_a_pruned_model_is_compared_with_the_pruned_one_too(tmp_path):
    small = small_classifier(tmp_path)
    build = build_in(tmp_path, small, "--set", "prune={macs: 0.8, multiple: 2}")
    path = measure(build, tmp_path / "kit")
    told = results(tmp_path / "kit")["engines"][1]
    assert told["to_pruned"][0]["snr_db"] > told["parity"][0]["snr_db"]
    ran = trtcompress("import-results", build, path, "--json")
    target = next(target for target in ran.json["targets"] if target["target"] == "jetson-agx-orin")
    values = {gate["gate"]: gate["value"] for gate in target["gates"]}
    told = next(one for one in results(tmp_path / "kit")["engines"] if f"/{one['encoding']}/" in target["engine"])
    assert values["min_snr_db:logits[to pruned]"] == told["to_pruned"][0]["snr_db"]
