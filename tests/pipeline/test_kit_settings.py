"""A kit builds as the section `tensorrt` asks, with graphs that the device's parser takes; what it lacks is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import onnx
import pytest

from command_line import done, trtcompress
from kits import SECONDS, engine, note, on_jetpack, on_jetpack_4, results
from small_builds import QUICK, small_classifier, tree
from trtcompress import kit_models
from trtcompress.builder import BuilderRef
from trtcompress_engines.tensorrt_options import TensorRTOptions
from trtcompress_graph.digest import files_digest

ORIN = """{name: jetson-agx-orin, tensorrt: {workspace_mb: 64, optimization_level: 2, version_compatible: true,
 weight_streaming: true, weight_streaming_budget: "30%", sparse: true, timing_cache: TACTICS,
 profiles: [{x: {batch: 1}}, {x: {batch: [2, 3, 4]}}]}}"""
XAVIER = "{name: jetson-xavier-nx, tensorrt: {dla: 1, workspace_mb: 32, refit: true}}"
AXES = ("--set", "model.inputs={x: {batch: [1, 2, 4]}}")
GATES = ("--set", "gates={min_cosine: 0.9}")
MADE = "10.3.0"
"""The release that the timing cache is of."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    small = small_classifier(folder)
    (folder / "tactics").write_text(MADE)
    targets = f"targets=[{ORIN}, {XAVIER}]".replace("TACTICS", str(folder / "tactics")).replace("\n", "")
    made = ("--out", folder / "out", "--store", folder / "store")
    formats = ("--set", "package=[jetson]")
    done("build", small.model, "--data", small.data, "--set", targets, *made, *AXES, *GATES, *QUICK, *formats)
    return folder


@pytest.fixture
def orin(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built / "out/small/jetson/jetson-agx-orin", tmp_path / "kit"))


@pytest.fixture
def xavier(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built / "out/small/jetson/jetson-xavier-nx", tmp_path / "old/kit"))


def summed(kit: Path, name: str) -> None:
    """Note the digest of a file anew."""
    sums = [line for line in (kit / "SHA256SUMS").read_text().splitlines() if not line.endswith(f"  {name}")]
    (kit / "SHA256SUMS").write_text("\n".join([*sums, f"{files_digest([kit / name])}  {name}"]) + "\n")


def opset(kit: Path, name: str) -> int:
    """Of the graph that an engine was built of."""
    graph = onnx.load_from_string((kit / "engines" / f"{name}.plan").read_bytes().partition(b"\n")[2])
    return int(graph.opset_import[0].version)


def batches(told: dict[str, Any]) -> list[list[int]]:
    return [[shape[0] for shape in profile["x"]] for profile in told["profiles"]]


def test_everything_is_set_where_the_release_has_it(orin: Path):
    made = on_jetpack(orin, "build", tensorrt=MADE)
    assert made.code == 0, made.err
    assert "left out" not in made.out
    for name in ("trt-int8", "trt-fp16"):
        told = note(orin, name)
        assert (told["workspace"], told["level"], told["timing"]) == (64 << 20, 2, MADE)
        assert told["flags"] == ["SPARSE_WEIGHTS", "VERSION_COMPATIBLE", "WEIGHT_STREAMING"]
        assert batches(told) == [[1, 1, 1], [2, 3, 4]]
        assert opset(orin, name) == 20
    reference = note(orin, "reference")  # TensorRT's own way, but for the limits of the device
    assert (reference["workspace"], reference["level"], reference["flags"]) == (64 << 20, 2, ["TF32"])
    assert batches(reference) == [[1, 2, 4]]
    ran = on_jetpack(orin, "validate", *SECONDS, tensorrt=MADE)
    assert ran.code == 0, ran.err
    held = engine(results(orin), "trt-int8")
    assert [speed["engine"]["batch"] for speed in held["speeds"]] == [1, 2, 4]
    assert held["left_out"] == []
    model = (orin / "engines/trt-int8.plan").read_bytes().partition(b"\n")[2]
    assert held["streamed_budget"] == int(len(model) * 0.3)  # of all the weights, as the stand-in counts them


def test_what_a_release_lacks_is_left_out_and_told(built: Path, orin: Path, tmp_path: Path):
    made = on_jetpack(orin, "build", tensorrt="8.4.1")
    assert made.code == 0, made.err
    told = note(orin, "trt-int8")
    assert (told["workspace"], told["level"], told["timing"]) == (64 << 20, None, "")
    assert told["flags"] == ["FP16", "INT8", "SPARSE_WEIGHTS"]
    lacking = [
        "TensorRT 8.4.1 has no optimization_level",
        "TensorRT 8.4.1 has no version_compatible",
        "TensorRT 8.4.1 has no weight_streaming",
        "timing_cache is of another release of TensorRT or another device: tactics are measured",
    ]
    for what in lacking:
        assert f"trt-int8: left out: {what}" in made.out
    ran = on_jetpack(orin, "validate", *SECONDS, tensorrt="8.4.1")
    assert ran.code == 0, ran.err
    assert engine(results(orin), "trt-int8")["left_out"] == lacking
    assert engine(results(orin), "trt-int8")["streamed_budget"] is None
    assert [speed["engine"]["batch"] for speed in engine(results(orin), "trt-fp16")["speeds"]] == [1, 2, 4]
    build = Path(shutil.copytree(built / "out/small", tmp_path / "small"))
    done("import-results", build, orin / "results/results.json")
    report = (build / "report.md").read_text()
    assert "- trt-int8: built without: TensorRT 8.4.1 has no optimization_level" in report


@pytest.mark.parametrize("release", ["8.4.1", "8.6.2"])
def test_older_parsers_get_graphs_that_they_take(orin: Path, release: str):
    facts = json.loads((orin / "kit.json").read_text())
    assert facts["models"]["trt-int8"]["older"]["before"] == [10, 0]
    assert any(text.startswith("trt-int8: before TensorRT 10.0") and "opset 13" in text for text in facts["notes"])
    assert facts["notes"][0] in (orin / "README.md").read_text()
    assert on_jetpack(orin, "build", tensorrt=release).code == 0
    for name in ("reference", "trt-int8", "trt-fp16"):
        assert opset(orin, name) == 13
    assert on_jetpack(orin, "validate", *SECONDS, tensorrt=release).code == 0
    held = engine(results(orin), "trt-int8")
    assert held["graph_sha256"] == facts["models"]["trt-int8"]["sha256"]
    assert held["parity"][0]["cosine"] > 0.95


def test_the_command_packs_the_same_kit(built: Path, tmp_path: Path):
    (built / "tactics").rename(built / "gone")  # what the build took lies beside the engine
    try:
        asked = ("--format", "jetson", "--target", "jetson-agx-orin")
        done("package", built / "out/small", *asked, "-o", tmp_path / "kit")
    finally:
        (built / "gone").rename(built / "tactics")
    assert tree(tmp_path / "kit") == tree(built / "out/small/jetson/jetson-agx-orin")


def test_engines_with_other_settings_are_built_again(orin: Path):
    assert on_jetpack(orin, "build", tensorrt=MADE).code == 0
    facts = json.loads((orin / "kit.json").read_text())
    facts["models"]["trt-fp16"]["builder"]["workspace_mb"] = 128
    (orin / "kit.json").write_text(json.dumps(facts))
    summed(orin, "kit.json")
    again = on_jetpack(orin, "build", tensorrt=MADE)
    assert "trt-int8: there already" in again.out
    assert "trt-fp16: building" in again.out
    assert note(orin, "trt-fp16")["workspace"] == 128 << 20


def test_engines_by_a_cache_are_built_again_where_a_scale_changed(xavier: Path):
    assert on_jetpack(xavier, "build", tensorrt="8.5.2").code == 0
    cache = xavier / "calibration.cache"
    header, line, *more = cache.read_text().splitlines()
    name, _, scale = line.rpartition(": ")
    cache.write_text("\n".join([header, f"{name}: {int(scale, 16) + 1:x}", *more]) + "\n")
    summed(xavier, "calibration.cache")
    again = on_jetpack(xavier, "build", tensorrt="8.5.2")
    assert "trt-int8: building" in again.out
    assert "trt-fp16: there already" in again.out
    assert note(xavier, "trt-int8")["cache"].splitlines()[1:] == cache.read_text().splitlines()[1:]


def test_all_that_a_config_asks_of_a_builder_is_carried_or_has_its_own_place():
    asked = TensorRTOptions(
        workspace_mb=1, optimization_level=1, hardware_compatible=True, version_compatible=True, refit=True,
        weight_streaming=True,
    )  # fmt: skip
    carried = set(kit_models._asked(BuilderRef(asked))) - {"tf32"}
    elsewhere = {"timing_cache", "timing_cache_sha256", "strip", "weight_streaming_budget", "sparse", "dla", "version"}
    assert carried | elsewhere == {field.name for field in fields(TensorRTOptions)}


def test_a_dla_is_used_without_a_word_on_the_device(built: Path, xavier: Path, tmp_path: Path):
    made = on_jetpack(xavier, "build", tensorrt="8.5.2")
    assert made.code == 0, made.err
    told = note(xavier, "trt-int8")
    flags = ["FP16", "GPU_FALLBACK", "INT8", "PREFER_PRECISION_CONSTRAINTS", "REFIT"]
    assert (told["dla"], told["flags"], told["workspace"]) == (1, flags, 32 << 20)
    assert told["cache"].startswith("TRT-8502-EntropyCalibration2\n")
    assert batches(told) == [[1, 1, 1]]
    assert (note(xavier, "trt-fp16")["dla"], note(xavier, "trt-fp16")["cache"]) == (1, "")
    assert note(xavier, "reference")["dla"] is None
    ran = on_jetpack(xavier, "validate", *SECONDS, tensorrt="8.5.2")
    assert ran.code == 0, ran.err
    build = Path(shutil.copytree(built / "out/small", tmp_path / "small"))
    done("import-results", build, xavier / "results/results.json")


def test_jetpack_4_builds_with_the_same_settings(xavier: Path):
    options = dict(line.split("\t")[::2] for line in (xavier / "jetpack4/models").read_text().splitlines())
    shared = "--workspace=32"
    for part in ("--int8", "--fp16", "--useDLACore=1", "--allowGPUFallback", "--refit", "--noTF32", shared):
        assert part in options["trt-int8"].split()
    assert "--calib=engines/calibration.cache" in options["trt-int8"]
    assert "--maxShapes=x:1x3x16x16" in options["trt-int8"]
    assert options["reference"].split() == [shared, "--minShapes=x:1x3x16x16", "--optShapes=x:2x3x16x16",
                                            "--maxShapes=x:4x3x16x16"]  # fmt: skip
    ran = on_jetpack_4(xavier, "build")
    assert ran.code == 0, ran.err
    assert onnx.load(xavier / "engines/trt-fp16.plan").opset_import[0].version == 13
    ran = on_jetpack_4(xavier, "validate")
    assert ran.code == 0, ran.err
    assert len(engine(results(xavier), "trt-int8")["speeds"]) == 1


def test_jetpack_4_builds_the_engine_by_the_cache_with_the_same_settings(xavier: Path):
    """That of the config, for a DLA by the same cache, differs by its core alone."""
    log = xavier.parent / "log"
    ran = on_jetpack_4(xavier, "build", "--dla", "0", STAND_IN_LOG=str(log))
    assert ran.code == 0, ran.err
    lines = [line.split() for line in log.read_text().splitlines()]
    given = {Path(plan).name.partition(".")[0]: sorted(options) for _, plan, *options in lines}
    options = given["implicit-int8"]
    assert [option.replace("DLACore=0", "DLACore=1") for option in options] == given["trt-int8"]
    assert {"--workspace=32", "--noTF32", "--refit", "--allowGPUFallback"} <= set(options)
    assert on_jetpack_4(xavier, "validate").code == 0
    assert len(engine(results(xavier), "implicit-int8")["speeds"]) == 1
    assert "implicit-int8: there already" in on_jetpack_4(xavier, "build", "--dla", "0").out
    again = on_jetpack_4(xavier, "build", "--dla", "1")
    assert "implicit-int8: building" in again.out
    assert "trt-int8: there already" in again.out
    held = xavier / "jetpack4/implicit"
    held.write_text(held.read_text().replace("--workspace=32", "--workspace=64"))
    summed(xavier, "jetpack4/implicit")
    assert "implicit-int8: passed over, it is not built of this kit" in on_jetpack_4(xavier, "validate").out


def test_jetpack_4_tells_what_the_engine_by_the_cache_goes_without(xavier: Path):
    left_out = xavier / "jetpack4/left-out"
    assert dict(line.split("\t") for line in left_out.read_text().splitlines())["implicit-int8"] == "[]"
    lacking = "optimization_level: it came with TensorRT 8.6, and this is 8.2"
    left_out.write_text(left_out.read_text().replace("implicit-int8\t[]", f'implicit-int8\t["{lacking}"]'))
    summed(xavier, "jetpack4/left-out")
    ran = on_jetpack_4(xavier, "build", "--dla", "0")
    assert (ran.code, f'implicit-int8: left out: ["{lacking}"]' in ran.out) == (0, True), ran.err
    assert on_jetpack_4(xavier, "validate").code == 0
    assert engine(results(xavier), "implicit-int8")["left_out"] == [lacking]


def test_another_release_than_the_config_asks_for_does_not_build(built: Path, tmp_path: Path):
    asked = """targets=[{name: jetson-agx-orin, tensorrt: {version: "8.5"}},
     {name: jetson-xavier-nx, tensorrt: {version: "8.02"}}]"""
    made = ("--out", tmp_path / "out", "--store", built / "store", *AXES, *GATES, *QUICK, "--set", "package=[jetson]")
    done("build", built / "small.onnx", "--data", built / "samples.npz", "--set", asked.replace("\n", ""), *made)
    orin, xavier = (tmp_path / "out/small/jetson" / name for name in ("jetson-agx-orin", "jetson-xavier-nx"))
    ran = on_jetpack(orin, "build", tensorrt="8.4.1")
    told = "this kit is for TensorRT 8.5 (tensorrt.version of its config), and this device has 8.4.1"
    assert (ran.code, told in ran.err) == (3, True), ran.err
    ran = on_jetpack_4(xavier, "build", STAND_IN_TENSORRT="8003")
    told = "this kit is for TensorRT 8.02 (tensorrt.version of its config), and this device has 8.0.3"
    assert (ran.code, told in ran.err, "building" in ran.out) == (3, True, False), ran.err
    assert [*orin.glob("engines/*.plan*"), *xavier.glob("engines/*.plan*")] == []
    assert on_jetpack_4(xavier, "build", STAND_IN_TENSORRT="8201").code == 0

    assert on_jetpack(orin, "build", tensorrt="8.5.2").code == 0
    assert on_jetpack(orin, "validate", *SECONDS, tensorrt="8.5.2").code == 0
    measured, report = orin / "results/results.json", tmp_path / "out/small/report.md"
    doubt = "these results are of TensorRT 8.4.1, and 8.5 was asked for"
    done("import-results", tmp_path / "out/small", measured)
    assert doubt not in report.read_text()
    measured.write_text(measured.read_text().replace("8.5.2", "8.4.1"))
    done("import-results", tmp_path / "out/small", measured)
    assert doubt in report.read_text()


def test_jetpack_4_builds_again_what_another_release_built(xavier: Path):
    for number, told in (("8003", "building"), ("8201", "building"), ("8201", "there already")):
        ran = on_jetpack_4(xavier, "build", STAND_IN_TENSORRT=number)
        assert (ran.code, f"trt-int8: {told}" in ran.out) == (0, True), ran.err


def test_a_plan_without_weights_is_refused_before_work(built: Path):
    asked = ("--target", "jetson-agx-orin", "--set", "tensorrt.strip=true", "--set", "package=[jetson]")
    ran = trtcompress("build", built / "small.onnx", "--data", built / "samples.npz", *asked, *AXES)
    assert (ran.code, "nor measured by a kit" in ran.err) == (2, True), ran.err
