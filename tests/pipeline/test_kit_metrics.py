"""A metric of the user's own over a kit: the device keeps the outputs, the import computes it and applies its gate."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from command_line import done, trtcompress
from kits import SECONDS, on_jetpack, on_jetpack_4, results
from small_builds import QUICK, small_classifier
from trtcompress_engines.kit.device.outputs import PREFIX, keep

AXES = ("--set", "model.inputs={x: {batch: [1, 2, 4]}}")
MARGIN = '''
import numpy as np

def margin(outputs, labels):
    """How far the right class is ahead: one number a sample."""
    scores = np.sort(outputs["logits"], axis=1)
    right = outputs["logits"].argmax(1) == np.asarray(labels)
    return (scores[:, -1] - scores[:, -2]) * right
'''


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with a build for an Orin and a Xavier, scored by a function of the user's own and by top1."""
    folder = tmp_path_factory.mktemp("own_metric")
    small = small_classifier(folder)
    (folder / "own_scores.py").write_text(MARGIN)
    targets = ("--target", "jetson-agx-orin", "--target", "jetson-xavier-nx")
    made = ("--out", folder / "out", "--store", folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        asked = ("--set", "metric=[own_scores:margin, top1]", "--set", "gates={max_metric_drop: 0.5, min_cosine: 0.9}")
        formats = ("--set", "package=[jetson]")
        done("build", small.model, "--data", small.data, *targets, *made, *AXES, *asked, *QUICK, *formats)
    return folder


@pytest.fixture
def build(built, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(built)
    return Path(shutil.copytree(built / "out/small", tmp_path / "small"))


def measured(build: Path, target: str, run) -> Path:
    kit = build / "jetson" / target
    for script, more in (("build", ()), ("validate", SECONDS if run is on_jetpack else ())):
        ran = run(kit, script, *more)
        assert ran.code == 0, ran.err
    assert "computes" in ran.out
    assert "own_scores:margin" in ran.out
    return kit


def scored(build: Path, target: str) -> dict[str, dict[str, float]]:
    report = json.loads((build / "report.json").read_text())
    found: dict[str, dict[str, float]] = next(t for t in report["targets"] if t["target"] == target)["metrics"]
    return found


@pytest.mark.parametrize(("target", "run"), [("jetson-agx-orin", on_jetpack), ("jetson-xavier-nx", on_jetpack_4)])
def test_the_import_computes_it_of_the_outputs_of_the_device(build, target, run):
    kit = measured(build, target, run)
    ran = trtcompress("import-results", build, kit / "results/results.json", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    gates = {gate["gate"]: gate for one in told["targets"] if one["target"] == target for gate in one["gates"]}
    assert gates["max_metric_drop:own_scores:margin"]["verdict"] == "pass"
    assert gates["max_metric_drop:top1"]["verdict"] == "pass"

    # the same by hand, of the files and of the golden samples
    engine = results(kit)["engines"][-1]
    assert len(engine["outputs"]) == (24 if run is on_jetpack else 8)
    wanted = []
    for index, kept in enumerate(engine["outputs"]):
        with np.load(kit / f"golden/{index:04}.npz") as golden:
            label = int(golden["labels"][0])
        file = kit / "results" / kept["path"]
        if file.suffix == ".npz":
            with np.load(file) as held:
                logits = held["output/logits"][0]
        else:
            (held,) = json.loads(file.read_text())
            logits = np.array(held["values"])
        top = np.sort(logits)
        wanted.append((top[-1] - top[-2]) * (logits.argmax() == label))
    candidates = next(
        v for v in json.loads((build / "report.json").read_text())["validations"] if v["target"] == target
    )["candidates"]
    own = {
        metric["name"]: metric
        for candidate in candidates
        if candidate["engine"]["encoding"] == engine["encoding"]
        for metric in candidate["metrics"]
    }
    assert own["own_scores:margin"]["value"] == pytest.approx(float(np.mean(wanted)), rel=1e-5)
    assert own["own_scores:margin"]["samples"] == len(wanted)
    assert set(scored(build, target)) == {"own_scores:margin", "top1"}
    assert f"of {len(wanted)} samples: a gate on it says little" in (build / "report.md").read_text()


def test_an_engine_that_loses_the_metric_on_the_device_fails_the_build(build):
    """Its outputs come out with the scores turned round, as a wrong engine would give them."""
    kit = measured(build, "jetson-agx-orin", on_jetpack)
    told = results(kit)
    for engine in told["engines"][1:]:
        for kept in engine["outputs"]:
            file = kit / "results" / kept["path"]
            with np.load(file) as held:
                wrong = -held["output/logits"]
            np.savez(file, **{"output/logits": wrong})
            kept["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (kit / "results/results.json").write_text(json.dumps(told))
    ran = trtcompress("import-results", build, kit / "results/results.json", "--json")
    assert ran.code == 1
    gates = {
        g["gate"]: g for t in json.loads(ran.out)["targets"] if t["target"] == "jetson-agx-orin" for g in t["gates"]
    }
    assert gates["max_metric_drop:own_scores:margin"]["verdict"] == "fail"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("gone", "outputs of an engine are missing"),
        ("changed", "not the file that the device wrote"),
        ("damaged", "these are no arrays"),
        ("texts", "holds no numbers"),
        ("outside", "leads out of the folder"),
        ("others", "of other samples"),
    ],
)
def test_outputs_that_are_not_the_devices_are_refused(build, fault, words):
    kit = measured(build, "jetson-agx-orin", on_jetpack)
    told = results(kit)
    first = told["engines"][-1]["outputs"][0]
    if fault == "gone":
        (kit / "results" / first["path"]).unlink()
    elif fault == "changed":
        (kit / "results" / first["path"]).write_bytes(b"no arrays")
    elif fault in ("damaged", "texts"):  # before its digest was made
        file = kit / "results" / first["path"]
        with np.load(file) as held:
            shape = held["output/logits"].shape
        np.savez(file, **{"output/logits": np.full(shape, "a")})
        file.write_bytes(file.read_bytes() if fault == "texts" else b"PK\3\4")
        first["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    elif fault == "outside":
        first["path"] = "../golden/0000.npz"
    else:
        first["golden"] = "0" * 64
    (kit / "results/results.json").write_text(json.dumps(told))
    before = (build / "report.json").read_bytes()
    ran = trtcompress("import-results", build, kit / "results/results.json")
    assert (ran.code, words in ran.err) == (3, True), ran.err
    assert (build / "report.json").read_bytes() == before


def test_a_metric_that_has_changed_since_the_build_is_refused(build, built):
    kit = measured(build, "jetson-agx-orin", on_jetpack)
    before = (build / "report.json").read_bytes()
    mine = built / "own_scores.py"
    mine.write_text(MARGIN + "    # another one\n")
    try:
        ran = trtcompress("import-results", build, kit / "results/results.json")
    finally:
        mine.write_text(MARGIN)
    assert (ran.code, "own_scores:margin: this metric is no longer that of the build" in ran.err) == (3, True), ran.err
    assert (build / "report.json").read_bytes() == before
    ran = trtcompress("import-results", build, kit / "results/results.json")
    assert ran.code == 0, ran.err


def test_outputs_are_kept_whatever_they_are_called(tmp_path):
    names = ("file", "allow_pickle", "a/b", "../up")
    kept = keep(tmp_path, "int8", 3, "d1", {name: np.array([index]) for index, name in enumerate(names)})
    with np.load(tmp_path / kept["path"]) as held:
        assert {name: int(held[PREFIX + name][0]) for name in names} == dict(zip(names, range(4), strict=True))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["0003.npz"]


def test_where_the_evaluation_data_is_not_the_gate_is_not_measured_and_the_report_says_why(
    build, tmp_path, monkeypatch
):
    kit = measured(build, "jetson-agx-orin", on_jetpack)
    manifest = json.loads((build / "manifest.json").read_text())
    manifest["config"]["data"]["calibration"]["source"] = "nowhere.npz"
    (build / "manifest.json").write_text(json.dumps(manifest))
    ran = trtcompress("import-results", build, kit / "results/results.json", "--json")
    assert ran.code == 0, ran.err
    gates = {
        g["gate"]: g for t in json.loads(ran.out)["targets"] if t["target"] == "jetson-agx-orin" for g in t["gates"]
    }
    assert gates["max_metric_drop:own_scores:margin"]["verdict"] == "not_measured"
    assert gates["max_metric_drop:top1"]["verdict"] == "pass"
    assert "no metric is computed of the outputs of the device" in (build / "report.md").read_text()


def test_on_jetpack_4_the_engine_of_the_dla_is_checked_too(build):
    kit = build / "jetson/jetson-xavier-nx"
    log = build / "trtexec.log"
    for script, more in (("build", ("--dla", "1")), ("validate", ())):
        ran = on_jetpack_4(kit, script, *more, STAND_IN_LOG=str(log))
        assert ran.code == 0, ran.err
    loads = [line for line in log.read_text().splitlines() if line.startswith("--loadEngine=")]
    assert loads
    for load in loads:
        assert ("implicit-int8.plan --useDLACore=1 " in load) == ("implicit-int8" in load) == ("useDLACore" in load)
    told = results(kit)
    assert [one["encoding"] for one in told["engines"]][-1] == "implicit-int8"
    dla = told["engines"][-1]
    assert dla["graph_sha256"]
    assert [speed["engine"]["batch"] for speed in dla["speeds"]] == [1], "its shapes are fixed"
    assert dla["parity"][0]["snr_db"] > 0
    assert "trt-int8" in [one["encoding"] for one in told["engines"]]


def test_on_jetpack_4_an_engine_of_another_tensorrt_has_its_own_exit_code(build):
    kit = build / "jetson/jetson-xavier-nx"
    assert on_jetpack_4(kit, "build").code == 0
    ran = on_jetpack_4(kit, "validate", STAND_IN_STALE="1")
    assert (ran.code, "./build --force" in ran.err) == (6, True), ran.err
