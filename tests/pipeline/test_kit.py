"""Kits for a Jetson: packed, run with stand-ins for TensorRT, and what goes wrong with them on the device."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from command_line import done, heed_signals, trtcompress
from kits import (
    NO_3_8,
    SECONDS,
    engine,
    note,
    on_jetpack,
    on_jetpack_4,
    python_3_8,
    results,
    run,
    with_busy_tegrastats,
    with_tegrastats,
)
from small_builds import QUICK, small_classifier, tree
from trtcompress_calibration.trt_cache import read_cache
from trtcompress_graph.load import read_model
from trtcompress_graph.ranges import read_ranges

AXES = ("--set", "model.inputs={x: {batch: [1, 2, 4]}}")
GATES = ("--set", "gates={min_cosine: 0.9, max_metric_drop: 0.5, max_size_mb: 1, max_latency_ms: 1000}")
RELEASES = ("8.4.1", "8.5.2", "8.6.2", "10.3.0", "11.4.1")
ENGINES = ("trt-int8", "trt-fp16")
DEVICES = ("jetson-agx-orin", "jetson-nano", "jetson-xavier-nx")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with a build for a CPU and three devices in `out/small`."""
    folder = tmp_path_factory.mktemp("kit")
    small = small_classifier(folder)
    targets = [part for name in ("cpu", *DEVICES) for part in ("--target", name)]
    made = ("--out", folder / "out", "--store", folder / "store")
    formats = ("--set", "package=[triton, jetson]")
    done("build", small.model, "--data", small.data, *targets, *made, *AXES, *GATES, *QUICK, *formats)
    return folder


@pytest.fixture
def kit(built, tmp_path) -> Path:
    return Path(shutil.copytree(built / "out/small/jetson/jetson-agx-orin", tmp_path / "kit"))


@pytest.fixture
def old_kit(built, tmp_path) -> Path:
    return Path(shutil.copytree(built / "out/small/jetson/jetson-xavier-nx", tmp_path / "old/kit"))


def test_a_build_leaves_a_kit_for_each_device_and_says_nothing_of_it_for_others(built):
    build = built / "out/small"
    assert sorted(path.name for path in (build / "jetson").iterdir()) == [*DEVICES]
    sums = [(build / "jetson" / name / "SHA256SUMS").read_bytes() for name in DEVICES]
    assert set(json.loads((build / "kits.json").read_text())) == {hashlib.sha256(kit).hexdigest() for kit in sums}
    assert (build / "triton/cpu/small/config.pbtxt").is_file()
    report = json.loads((build / "report.json").read_text())
    folders = {one["target"]: one["folders"] for one in report["packages"]}
    assert folders["jetson-agx-orin"] == {"jetson": "jetson/jetson-agx-orin"}
    assert not any("jetson:" in text for one in report["packages"] for text in one["notes"])
    checked = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=build / "jetson/jetson-agx-orin")
    assert checked.returncode == 0


def test_it_holds_the_graphs_of_the_build_and_the_answers_of_the_reference(built, kit):
    build = built / "out/small"
    facts = json.loads((kit / "kit.json").read_text())
    assert list(facts["models"]) == ["reference", *ENGINES, "implicit-int8"]
    for name in ENGINES:
        graph = (build / "engines/jetson-agx-orin" / name / "model.onnx").read_bytes()
        assert (kit / facts["models"][name]["path"]).read_bytes() == graph
    assert facts["models"]["trt-int8"]["flags"] == ["FP16", "INT8"]
    assert (facts["models"]["trt-fp16"]["flags"], facts["models"]["reference"]["flags"]) == (["FP16"], [])
    with np.load(built / "samples.npz") as samples, np.load(kit / "golden/0003.npz") as golden:
        np.testing.assert_array_equal(golden["input/x"], samples["x"][3:4])
        assert golden["labels"] == samples["labels"][3:4] == golden["output/logits"].argmax(1)


def test_the_cache_has_the_scales_of_the_ranges_and_the_version_of_the_platform(built, kit):
    model = read_model(kit / "models/implicit-int8/model.onnx")
    ranges = read_ranges(built / "out/small/ranges.json")
    assert ranges.model_sha256 == model.digest
    assert (kit / "calibration.cache").read_text().startswith("TRT-101600-EntropyCalibration2\n")
    assert set(read_cache(kit / "calibration.cache", model).tensors) == set(ranges.tensors)


def test_a_device_without_int8_gets_no_cache(built, tmp_path):
    kit = Path(shutil.copytree(built / "out/small/jetson/jetson-nano", tmp_path / "kit"))
    assert list(json.loads((kit / "kit.json").read_text())["models"]) == ["reference", "trt-fp16"]
    assert not (kit / "calibration.cache").exists()
    ran = on_jetpack(kit, "build", "--implicit")
    assert (ran.code, "no calibration.cache" in ran.err) == (2, True)


def test_the_command_packs_the_same_kit(built, tmp_path):
    build = built / "out/small"
    asked = ("--format", "jetson", "--target", "jetson-agx-orin")
    told = done("package", build, *asked, "-o", tmp_path / "kit", "--json").json
    assert told["packages"][0]["format"] == "jetson"
    assert tree(tmp_path / "kit") == tree(build / "jetson/jetson-agx-orin")
    ran = done("package", build, "--format", "jetson", "-o", tmp_path / "all")
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [*DEVICES]
    assert "./build && ./validate" in ran.err
    for name in ("one", "two"):
        done("package", build, *asked, "--archive", "-o", tmp_path / name)
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    shutil.unpack_archive(tmp_path / "one.tar.gz", tmp_path)
    assert tree(tmp_path / "small-jetson-agx-orin") == tree(tmp_path / "kit")
    assert run(tmp_path / "small-jetson-agx-orin", "validate", "--help").code == 0


def test_what_is_in_the_way_stays(built, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"dear")
    asked = ("package", built / "out/small", "--format", "jetson", "--target", "jetson-agx-orin")
    ran = trtcompress(*asked, "-o", tmp_path)
    assert (ran.code, "something else than a kit" in ran.err) == (2, True)
    assert tree(tmp_path) == {"photo.jpg": b"dear"}
    assert trtcompress("package", built / "out/small", "--archive", "-o", tmp_path / "r").code == 2
    cpu = trtcompress("package", built / "out/small", "--format", "jetson", "--target", "cpu", "-o", tmp_path / "kit")
    assert (cpu.code, "a kit is for a device" in cpu.err) == (4, True)


def test_other_evaluation_data_than_the_build_saw_is_refused(built, tmp_path):
    build = Path(shutil.copytree(built / "out/small", tmp_path / "small"))
    manifest = json.loads((build / "manifest.json").read_text())
    np.savez(tmp_path / "other.npz", x=np.zeros((2, 3, 16, 16), np.float32))
    for name, told in (("other.npz", "no longer the evaluation data"), ("gone.npz", "is not there")):
        manifest["config"]["data"]["calibration"]["source"] = str(tmp_path / name)
        (build / "manifest.json").write_text(json.dumps(manifest))
        asked = ("--format", "jetson", "--target", "jetson-agx-orin")
        ran = trtcompress("package", build, *asked, "-o", tmp_path / "kit")
        assert (ran.code, told in ran.err, "package: [jetson]" in ran.err) == (2, True, True), ran.err
    assert not (tmp_path / "kit").exists()


def on_onnxruntime(kit: Path, python: str, power: float | None = None, **more: str) -> None:
    ran = run(kit, "validate", "--backend", "onnxruntime", *SECONDS, python=python, **more)
    assert ran.code == 0, ran.err
    told = results(kit)
    assert (told["backend"], told["golden"]) == ("onnxruntime", 24)
    assert [one["encoding"] for one in told["engines"]] == ["reference", *ENGINES]
    assert engine(told, "reference")["parity"][0]["snr_db"] > 100
    for name in ENGINES:
        held = engine(told, name)
        assert 0.95 < held["parity"][0]["cosine"] <= 1
        assert [speed["engine"]["batch"] for speed in held["speeds"]] == [1, 2, 4]
        assert held["power_w"] == power
        assert {gate["verdict"] for gate in held["gates"]} == {"pass"}
    suites = ElementTree.parse(kit / "results/junit.xml").getroot()
    assert [suite.get("tests") for suite in suites] == ["4", "4"]
    assert not (kit / "device/__pycache__").exists()


def test_a_kit_runs_here_over_onnxruntime(kit):
    on_onnxruntime(kit, sys.executable)


def test_a_kit_runs_under_python_3_8(kit):
    python = python_3_8()
    if python is None:
        pytest.skip(NO_3_8)
    path = with_tegrastats(kit.parent / "bin", "RAM 10/99MB VDD_IN 2000mW/1mW")
    on_onnxruntime(kit, python, power=2.0, PATH=path)


def test_memory_and_power_are_those_of_an_engine_that_runs_alone(kit):
    assert on_jetpack(kit, "build").code == 0
    path = with_tegrastats(kit.parent / "bin", "RAM 10/99MB VDD_IN 2000mW/1mW VDD_SOC 700mW/1mW")
    log = kit.parent / "log"
    ran = on_jetpack(kit, "validate", *SECONDS, PATH=path, STAND_IN_LOG=str(log))
    assert ran.code == 0, ran.err
    for name in ("reference", *ENGINES):
        held = engine(results(kit), name)
        assert (held["ram_mb"], held["power_w"], held["peak_power_w"]) == (10, 2, 2)
    lines = log.read_text().splitlines()
    assert "free fp32" in lines[: lines.index("on")]
    alive: list[str] = []
    most, measured, on = 0, [], False
    for what, *kind in (line.split() for line in lines):
        on = what == "on" or (on and what != "off")
        alive = [*alive, *kind] if what == "load" else alive
        if what == "free":
            alive.remove(*kind)
        most = max(most, len(alive))
        if on and what == "run":
            assert alive == kind
            measured += kind if measured[-1:] != kind else []
    assert measured == ["fp32", "int8", "fp16"]
    assert most == 2  # the reference and the engine that is compared with it
    assert not alive


@pytest.mark.parametrize(
    ("script", "fault", "words"),
    [
        ("validate", "STAND_IN_FULL", "error: CUDA failed: cuMemAlloc failed: out of memory"),
        ("validate", "STAND_IN_NO_GPU", "error: CUDA failed: cuInit failed: no CUDA-capable device is detected"),
        ("validate", "STAND_IN_BROKEN", "error: IndexError: nobody thought of this"),
        ("build", "STAND_IN_BROKEN", "error: IndexError: nobody thought of this"),
    ],
)
def test_what_fails_on_the_device_is_no_gate_that_failed(kit, script, fault, words):
    if script == "validate":
        assert on_jetpack(kit, "build").code == 0
    ran = on_jetpack(kit, script, *(SECONDS if script == "validate" else ()), **{fault: "1"})
    assert (ran.code, ran.err.splitlines()[-2 if fault == "STAND_IN_BROKEN" else -1]) == (4, words)
    assert "Traceback" not in ran.err
    if fault == "STAND_IN_BROKEN":
        assert ran.err.splitlines()[-1] == "hint: set TRTCOMPRESS_TRACEBACK=1 to see where"
        told = on_jetpack(kit, script, **{fault: "1", "TRTCOMPRESS_TRACEBACK": "1"})
        assert (told.code, words in told.err, "Traceback" in told.err) == (4, True, True)


@pytest.mark.parametrize("release", RELEASES)
def test_engines_are_built_and_checked_over_the_api_of_each_release(kit, release):
    made = on_jetpack(kit, "build", tensorrt=release)
    assert made.code == 0, made.err
    typed = release.startswith("1")
    told = note(kit, "trt-int8")
    assert (told["typed"], told["flags"]) == (typed, [] if typed else ["FP16", "INT8"])
    assert [[shape[0] for shape in profile["x"]] for profile in told["profiles"]] == [[1, 2, 4]]
    ran = on_jetpack(kit, "validate", *SECONDS, tensorrt=release)
    assert ran.code == 0, ran.err
    found = results(kit)
    assert (found["backend"], found["device"]["tensorrt"]) == ("tensorrt", release)
    assert found["device"]["cuda"] == "pycuda"
    for name in ENGINES:
        held = engine(found, name)
        assert held["size_bytes"] == (kit / "engines" / f"{name}.plan").stat().st_size
        assert held["activation_bytes"] == 4096
        assert held["metrics"][0]["hits"] == [1] * 24
    again = on_jetpack(kit, "build", tensorrt=release)
    assert again.out.count("there already") == 3


@pytest.mark.parametrize("release", ["8.4.1", "10.3.0"])
def test_an_engine_for_the_dla_takes_the_cache_under_its_own_header(kit, release):
    made = on_jetpack(kit, "build", "--dla", "1", tensorrt=release)
    assert made.code == 0, made.err
    told = note(kit, "implicit-int8")
    assert (told["dla"], told["flags"], told["typed"]) == (
        1, ["FP16", "GPU_FALLBACK", "INT8", "PREFER_PRECISION_CONSTRAINTS"], False
    )  # fmt: skip
    assert {tuple(shape) for shape in told["profiles"][0]["x"]} == {(1, 3, 16, 16)}
    header = {"8.4.1": "TRT-8401-", "10.3.0": "TRT-100300-"}[release]
    cache = (kit / "calibration.cache").read_text().partition("\n")[2]
    assert told["cache"] == f"{header}EntropyCalibration2\n{cache}"
    ran = on_jetpack(kit, "validate", *SECONDS, tensorrt=release)
    assert ran.code == 0, ran.err
    assert len(engine(results(kit), "implicit-int8")["speeds"]) == 1
    ran = on_jetpack(kit, "build", "--dla", "2", tensorrt=release)
    assert (ran.code, "there is no DLA core 2: Jetson AGX Orin has 2" in ran.err) == (2, True)


def test_the_engine_by_the_cache_is_for_what_was_asked_last(kit):
    """A core of the DLA, another, or the GPU; what is there for that very one is not built again."""
    for asked, core in (("--dla=1", 1), ("--dla=0", 0), ("--implicit", None), ("--dla=0", 0), ("--implicit", None)):
        for told in ("implicit-int8: building", "implicit-int8: there already"):
            made = on_jetpack(kit, "build", asked, tensorrt="10.3.0")
            assert (made.code, told in made.out) == (0, True), made.err
            assert note(kit, "implicit-int8")["dla"] == core
    assert made.out.count("there already") == 4
    assert on_jetpack(kit, "validate", *SECONDS, tensorrt="10.3.0").code == 0
    assert len(engine(results(kit), "implicit-int8")["speeds"]) == 3


@pytest.mark.parametrize(
    ("asked", "release", "words"),
    [
        ("--implicit", "11.4.1", "TensorRT 11.4.1 has no calibration caches, by which implicit-int8 is INT8"),
        ("--dla=0", "11.4.1", "TensorRT 11.4.1 builds implicit-int8 for no DLA here"),
        ("--dla=0", "10.16.2", "TensorRT 10.16.2 builds implicit-int8 for no DLA here"),
    ],
)
def test_what_a_new_release_cannot_build_is_told_and_the_others_are_built(kit, asked, release, words):
    made = on_jetpack(kit, "build", asked, tensorrt=release)
    assert (made.code, words in made.err) == (4, True), made.err
    assert sorted(file.stem for file in (kit / "engines").glob("*.plan")) == ["reference", "trt-fp16", "trt-int8"]
    ran = on_jetpack(kit, "validate", *SECONDS, tensorrt=release)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("path", ["models/trt-int8/model.onnx", "golden/0001.npz", "kit.json", "SHA256SUMS"])
@pytest.mark.parametrize("fault", ["gone", "changed"])
def test_a_damaged_kit_says_so_and_does_not_run(old_kit, path, fault):
    file = old_kit / path
    if fault == "gone":
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    for where, release in ((on_jetpack, {"tensorrt": "8.5.2"}), (on_jetpack_4, {})):
        for script in ("build", "validate"):
            ran = where(old_kit, script, **release)
            assert (ran.code, "this kit is damaged" in ran.err) == (3, True), ran.err
            assert "Traceback" not in ran.err
    assert not (old_kit / "engines").exists()
    assert not (old_kit / "results").exists()


def test_another_major_version_of_tensorrt_is_refused(kit, old_kit):
    ran = on_jetpack(kit, "build", tensorrt="12.0.0")
    assert (ran.code, "this kit is for TensorRT 8 or 10 or 11, and this device has 12.0.0" in ran.err) == (3, True)
    ran = run(kit, "build")
    assert (ran.code, "tensorrt" in ran.err, "nvidia-jetpack" in ran.err) == (3, True, True)
    for number, told in (("7103", "an older one"), ("101602", "10.16.2")):
        ran = on_jetpack_4(old_kit, "build", STAND_IN_TENSORRT=number)
        assert (ran.code, f"this kit is for TensorRT 8, and this device has {told}" in ran.err) == (3, True), ran.err
    assert not list((old_kit / "engines").glob("*.plan*"))


def test_engines_of_another_release_are_built_again(kit):
    assert on_jetpack(kit, "build", tensorrt="8.4.1").code == 0
    ran = on_jetpack(kit, "validate", *SECONDS, tensorrt="8.5.2")
    assert (ran.code, "reference was not built by TensorRT 8.5.2, which is here" in ran.err) == (6, True)
    assert "there already" not in on_jetpack(kit, "build", tensorrt="8.5.2").out
    assert on_jetpack(kit, "validate", *SECONDS, tensorrt="8.5.2").code == 0


def test_a_build_that_stopped_half_way_goes_on_there(kit):
    ran = on_jetpack(kit, "build", STAND_IN_REFUSES="trt-int8")
    assert (ran.code, "cannot read trt-int8: no importer for this (node 3)" in ran.err) == (4, True)
    assert "could not be built: trt-int8" in ran.err
    ran = on_jetpack(kit, "validate", *SECONDS)
    assert (ran.code, "trt-int8: passed over" in ran.out) == (0, True)
    assert [one["encoding"] for one in results(kit)["engines"]] == ["reference", "trt-fp16"]
    (kit / "engines/trt-int8.plan").write_bytes(b"half")  # as after a power cut without a journal
    ran = on_jetpack(kit, "build")
    assert ran.code == 0
    assert "reference: there already" in ran.out
    assert "trt-int8: building" in ran.out
    assert "trt-fp16: there already" in ran.out


def test_no_space_says_so(kit, monkeypatch):
    from trtcompress_engines.kit.device import build as building
    from trtcompress_engines.kit.device.kit import Kit, KitError

    monkeypatch.setattr(building.api, "load", lambda releases, asked: type("trt", (), {"__version__": "8.5.2"}))
    monkeypatch.setattr(building.shutil, "disk_usage", lambda path: type("usage", (), {"free": 10}))
    with pytest.raises(KitError, match=r"no space: reference needs .* MB in .*, and 0 MB are free") as caught:
        building.build(Kit(kit))
    assert caught.value.code == 25
    assert not list((kit / "engines").iterdir())
    full = subprocess.run(["/bin/sh", "-c", "exec 3>/dev/full && echo x >&3"], capture_output=True)
    assert full.returncode != 0  # the system has the device that the next lines write to
    (kit / "engines/.reference.plan.partial").symlink_to("/dev/full")
    ran = on_jetpack(kit, "build")
    assert (ran.code, "no space left on the device" in ran.err) == (25, True), ran.err
    assert not list((kit / "engines").iterdir())


def test_on_jetpack_4_the_scripts_tell_what_they_take(old_kit):
    for script, words in (("build", "[--force] [--dla CORE]"), ("validate", "[-o DIR]")):
        ran = on_jetpack_4(old_kit, script, "--help")
        assert (ran.code, words in ran.out) == (0, True), ran.err
    ran = on_jetpack_4(old_kit, "validate", "--backend", "onnxruntime")
    assert (ran.code, "--backend needs Python 3.8 or newer" in ran.err) == (2, True)


def test_a_folder_that_takes_no_results_is_told_before_anything_is_measured(kit):
    ran = run(kit, "validate", "--backend", "onnxruntime", "-o", kit / "kit.json/results")
    assert (ran.code, "no results can be written to" in ran.err, "name a folder with -o" in ran.err) == (4, True, True)
    assert not ran.out


def test_on_jetpack_4_engines_of_another_kit_are_built_again_and_not_measured(old_kit):
    assert on_jetpack_4(old_kit, "build").code == 0
    models = old_kit / "jetpack4/models"
    before = hashlib.sha256(models.read_bytes()).hexdigest()
    lines = [line + " --noTF32" * line.startswith("trt-int8") for line in models.read_text().splitlines()]
    models.write_text("\n".join(lines) + "\n")
    sums = old_kit / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(before, hashlib.sha256(models.read_bytes()).hexdigest()))
    ran = on_jetpack_4(old_kit, "validate")
    assert (ran.code, "trt-int8: passed over, it is not built of this kit: ./build" in ran.out) == (0, True), ran.err
    assert [one["encoding"] for one in results(old_kit)["engines"]] == ["reference", "trt-fp16"]
    again = on_jetpack_4(old_kit, "build")
    assert "trt-int8: building" in again.out
    assert "trt-fp16: there already" in again.out
    assert on_jetpack_4(old_kit, "validate").code == 0
    assert engine(results(old_kit), "trt-int8")


def test_on_jetpack_4_an_engine_and_the_reference_are_timed_in_turn(old_kit):
    assert on_jetpack_4(old_kit, "build").code == 0
    log = old_kit.parent / "trtexec.log"
    ran = on_jetpack_4(old_kit, "validate", STAND_IN_LOG=str(log))
    assert ran.code == 0, ran.err
    timed = [line for line in log.read_text().splitlines() if "--exportTimes=" in line]
    names = [line.partition(".plan")[0].rpartition("/")[2] for line in timed]
    turns = {name: [name, "reference", "reference", name] for name in ENGINES}
    batches = len(engine(results(old_kit), ENGINES[0])["speeds"])
    assert batches > 1
    assert names[-4 * batches * len(ENGINES) :] == [
        one for name in ENGINES for _ in range(batches) for one in turns[name]
    ]


def test_on_jetpack_4_the_power_is_that_of_the_inference_at_the_usual_batch_size(old_kit):
    assert on_jetpack_4(old_kit, "build").code == 0
    ran = on_jetpack_4(old_kit, "validate", **with_busy_tegrastats(old_kit.parent / "bin"))
    assert ran.code == 0, ran.err
    for name in ("reference", *ENGINES):
        held = engine(results(old_kit), name)
        assert (held["ram_mb"], held["power_w"], held["peak_power_w"]) == (7, 2, 2)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_signal_ends_what_jetpack_4_started_and_leaves_nothing(old_kit, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    assert on_jetpack_4(old_kit, "build").code == 0
    programs, temporary = old_kit.parent / "bin", old_kit.parent / "tmp"
    temporary.mkdir()
    asked = {**with_busy_tegrastats(programs), "STAND_IN_WAITS": "1", "TMPDIR": str(temporary)}
    environment = {**os.environ, **asked, "PATH": f"{programs}:{os.environ['PATH']}"}
    command = [shell, str(old_kit / "jetpack4/validate.sh")]
    for sent in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        (programs / "state").unlink(missing_ok=True)
        how = {"start_new_session": True, "stderr": subprocess.DEVNULL, "preexec_fn": heed_signals}
        running = subprocess.Popen(command, env=environment, **how)
        try:
            while not (programs / "state").exists():
                assert running.poll() is None
                time.sleep(0.05)
            assert list(temporary.glob("tmp.*"))
            tegrastats = Path("/proc", (programs / "tegrastats.pid").read_text().strip())
            os.killpg(running.pid, sent)  # as a terminal does
            assert running.wait(60) == 128 + sent
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
        while tegrastats.exists():  # to the end of the test's time, if need be
            time.sleep(0.05)
        assert not list(temporary.glob("tmp.*"))


def test_on_jetpack_4_weights_beside_the_graph_need_space_too(old_kit):
    programs = old_kit.parent / "bin"
    programs.mkdir()
    (programs / "df").write_text("#!/bin/sh\necho head\necho disk 9999 1 2000 9% /\n")
    (programs / "df").chmod(0o755)
    (old_kit / "models/reference/weights.data").write_bytes(bytes(range(256)) * 8000)
    ran = on_jetpack_4(old_kit, "build")
    assert (ran.code, "no space: reference needs 3" in ran.err, "2000 kB are free" in ran.err) == (25, True, True)


def test_jetpack_4_needs_trtexec_and_a_shell_alone(old_kit):
    ran = on_jetpack_4(old_kit, "build", "--dla", "0")
    assert ran.code == 0, ran.err
    assert (old_kit / "engines/calibration.cache").read_text().startswith("TRT-8201-EntropyCalibration2\n")
    ran = on_jetpack_4(old_kit, "validate")
    assert ran.code == 0, ran.err
    told = results(old_kit)
    assert (told["golden"], told["device"]["tensorrt"], told["device"]["cuda"]) == (8, "8.2.1", "trtexec")
    speed = engine(told, "trt-int8")["speeds"][1]
    times = np.tile(np.arange(11) + 0.5, 2)  # what the stand-in tells, in two turns
    p50, p90, p99 = np.percentile(times, [50, 90, 99])
    expected = {"batch": 2, "p50": p50, "p90": p90, "p99": pytest.approx(p99), "throughput": pytest.approx(2e3 / p50)}
    assert speed["engine"] == expected
    assert speed["speedup"] == 1
    suites = ElementTree.parse(old_kit / "results/junit.xml").getroot()
    assert [(suite.get("tests"), suite.get("failures"), suite.get("skipped")) for suite in suites] == [
        ("4", "0", "1")
    ] * 3
    assert "there already" in on_jetpack_4(old_kit, "build").out
    assert "no DLA core 2" in on_jetpack_4(old_kit, "build", "--dla", "2").err
    ran = on_jetpack_4(old_kit, "build", "--force", STAND_IN_REFUSES="trt-int8")
    assert (ran.code, "could not be built: trt-int8" in ran.err) == (4, True)

    # awk counts as the build does
    for path in sorted((old_kit / "golden").glob("*.npz"))[8:]:
        path.unlink()
    lines = (old_kit / "SHA256SUMS").read_text().splitlines(keepends=True)
    (old_kit / "SHA256SUMS").write_text("".join(line for line in lines if (old_kit / line[66:].strip()).is_file()))
    assert on_jetpack(old_kit, "build", "--force").code == 0
    assert on_jetpack(old_kit, "validate", *SECONDS, "-o", old_kit / "py").code == 0
    for name in ENGINES:
        one, other = (engine(found, name)["parity"][0] for found in (told, results(old_kit, "py")))
        assert one["cosine"] == pytest.approx(other["cosine"], abs=1e-6)
        assert one["snr_db"] == pytest.approx(other["snr_db"], abs=0.2)  # trtexec writes six digits
        assert one["max_abs"] == pytest.approx(other["max_abs"], rel=0.01)
        assert one["scale"] == pytest.approx(other["scale"], abs=1e-4)
