"""What a kit calls of TensorRT on its device is checked by the signatures of the bindings, release by release.

Kits run on 8.4 to 11; see test_trt_signatures.py for what a double of a release is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import trt_double
from small_cnn import write_cnn
from trtcompress_engines.kit.device.builder import FLAGS
from trtcompress_engines.tensorrt_release import Release

TESTS = Path(__file__).parents[1]
RELEASES = trt_double.releases()
SCALES = "x: 3c010a14\n"
PROFILES = [{"x": [[1, 3, 16, 16]] * 3}, {"x": [[2, 3, 16, 16], [4, 3, 16, 16], [8, 3, 16, 16]]}]
TYPES = ["FP16", "INT8"]
TASKS: dict[str, dict[str, Any]] = {
    "plain": {"flags": TYPES, "asked": {"tf32": False}},
    "float": {},
    "limits": {"flags": TYPES, "asked": {"workspace_mb": 64, "optimization_level": 5}},
    "portable": {"flags": TYPES, "asked": {"hardware_compatible": True}},
    "asked": {"flags": [*TYPES, "SPARSE_WEIGHTS"], "asked": dict.fromkeys(FLAGS, True)},
    "timing": {"flags": TYPES, "timing": "tactics"},
    "cache": {"flags": TYPES, "cache": f"TRT-8401-EntropyCalibration2\n{SCALES}", "asked": dict.fromkeys(FLAGS, True)},
    "dla": {"flags": TYPES, "cache": f"TRT-8401-EntropyCalibration2\n{SCALES}", "dla": 1},
}


@dataclass(frozen=True)
class Kit:
    """What the builder of a kit did on a release, task by task."""

    release: Release
    told: dict[str, dict[str, Any]]

    @property
    def refused(self) -> set[str]:
        """Tasks that the release has nothing for: 11 has no implicit INT8."""
        return {"cache", "dla"} if self.release.lacks("implicit") else set()

    def calls(self, name: str, *start: object) -> list[list[Any]]:
        return [call for call in self.told[name]["calls"] if call[: len(start)] == list(start)]


def run(release: str, tasks: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    (folder / "cases.json").write_text(json.dumps(tasks))
    command = [sys.executable, str(TESTS / "trt_on_double.py"), release, str(folder / "cases.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module", params=RELEASES)
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = tmp_path_factory.mktemp("kit")
    model = str(write_cnn(folder / "model.onnx", int8=True, fp16=True))
    cases = [{"kit": {"model": model, "name": name, "profiles": PROFILES, **task}} for name, task in TASKS.items()]
    return Kit(Release("classic", request.param), dict(zip(TASKS, run(request.param, cases, folder), strict=True)))


def test_the_releases_that_kits_run_on_are_there():
    assert RELEASES == ["10.0.1", "10.16.1.11", "10.3.0", "11.4.0.106", "8.6.1"]


def test_every_call_is_one_that_the_bindings_take(kit: Kit):
    for name, told in kit.told.items():
        if name in kit.refused:
            assert told["error"].startswith(f"TensorRT {kit.release.version} "), name
            assert kit.calls(name, "Builder", "create_network") == [], name
            continue
        assert (told["error"], told["plan"]) == ("", trt_double.PLAN.decode()), name
        assert len(kit.calls(name, "IBuilderConfig", "add_optimization_profile")) == len(PROFILES), name
        assert ["IOptimizationProfile", "set_shape", "x", *PROFILES[1]["x"]] in told["calls"], name


def test_networks_are_typed_as_the_release_takes_it(kit: Kit):
    flags = trt_double.read(kit.release.version)["enums"]["NetworkDefinitionCreationFlag"]
    old = kit.release.number < (10, 0)
    for name, task in TASKS.items():
        if name in kit.refused:
            continue
        weak = "cache" in task
        wanted = 1 << flags["EXPLICIT_BATCH"] if old else 0 if weak else 1 << flags["STRONGLY_TYPED"]
        assert kit.calls(name, "Builder", "create_network") == [["Builder", "create_network", wanted]], name
        typed = {call[2] for call in kit.calls(name, "IBuilderConfig", "set_flag")} & set(TYPES)
        assert typed == (set(task.get("flags", ())) & set(TYPES) if old or weak else set()), name


def test_what_is_asked_is_set_or_told_to_be_left_out(kit: Kit):
    assert ["IBuilderConfig", "clear_flag", "TF32"] in kit.told["plain"]["calls"]
    assert ["IBuilderConfig", "set_memory_pool_limit", "WORKSPACE", 64 << 20] in kit.told["limits"]["calls"]
    assert ["IBuilderConfig", "builder_optimization_level", 5] in kit.told["limits"]["calls"]
    assert kit.told["limits"]["left_out"] == []
    assert ["IBuilderConfig", "hardware_compatibility_level", "AMPERE_PLUS"] in kit.told["portable"]["calls"]
    assert kit.told["portable"]["left_out"] == []
    given = {call[2] for call in kit.calls("asked", "IBuilderConfig", "set_flag")}
    lacking = [name for name in FLAGS if kit.release.lacks(name)]  # type: ignore[arg-type]
    assert given - {*TYPES} == {"SPARSE_WEIGHTS", *(flag for name, flag in FLAGS.items() if name not in lacking)}
    assert [told.partition(" has no ")[2] for told in kit.told["asked"]["left_out"]] == lacking
    if "cache" not in kit.refused:
        assert "WEIGHT_STREAMING" not in {call[2] for call in kit.calls("cache", "IBuilderConfig", "set_flag")}
        assert kit.told["cache"]["left_out"][0].startswith(
            f"TensorRT {kit.release.version} has no weight_streaming" if lacking else "weight_streaming needs"
        )
    for name in ("asked", "portable"):
        norms = kit.calls(name, "OnnxParser", "set_flag")
        assert norms == ([["OnnxParser", "set_flag", "NATIVE_INSTANCENORM"]] if kit.release.number < (10, 0) else [])


def test_an_input_that_decides_shapes_is_refused(kit: Kit, tmp_path: Path):
    model = str(write_cnn(tmp_path / "model.onnx"))
    case = {"kit": {"model": model, "name": "m"}, "answers": {"ITensor.is_shape_tensor": True}}
    (told,) = run(kit.release.version, [case], tmp_path)
    assert told["error"].startswith("m takes shapes as values (x)")


def test_a_timing_cache_is_taken_or_told_to_be_of_another_device(kit: Kit, tmp_path: Path):
    assert kit.calls("timing", "IBuilderConfig", "create_timing_cache") == [
        ["IBuilderConfig", "create_timing_cache", "7 bytes"]
    ]
    assert kit.told["timing"]["left_out"] == []
    model = str(write_cnn(tmp_path / "model.onnx", int8=True, fp16=True))
    other = {"kit": {"model": model, "name": "m", "timing": "tactics"}}
    (told,) = run(kit.release.version, [{**other, "answers": {"IBuilderConfig.set_timing_cache": False}}], tmp_path)
    assert "of another release of TensorRT or another device" in told["left_out"][0]


def test_scales_are_handed_out_under_the_header_of_the_release(kit: Kit):
    major, minor, patch = map(int, kit.release.version.split(".")[:3])
    number = major * (10000 if major >= 10 else 1000) + minor * 100 + patch
    for name in {"cache", "dla"} - kit.refused:
        told = kit.told[name]["calibrated"]
        assert told["cache"] == f"TRT-{number}-EntropyCalibration2\n{SCALES}", name
        assert told["batches"] == [], name
        assert kit.calls(name, "IBuilderConfig", "set_calibration_profile"), name


def test_a_dla_gets_what_it_needs(kit: Kit, tmp_path: Path):
    model = str(write_cnn(tmp_path / "model.onnx"))
    asked = {"kit": {"model": model, "name": "m", "dla": 1}}
    (told,) = run(kit.release.version, [{**asked, "answers": {"Builder.num_DLA_cores": 1}}], tmp_path)
    assert told["error"].startswith(f"TensorRT {kit.release.version} builds m for no DLA here")
    if "dla" in kit.refused:
        return
    assert ["IBuilderConfig", "default_device_type", "DLA"] in kit.told["dla"]["calls"]
    assert ["IBuilderConfig", "DLA_core", 1] in kit.told["dla"]["calls"]
    given = {call[2] for call in kit.calls("dla", "IBuilderConfig", "set_flag")}
    assert given == {*TYPES, "GPU_FALLBACK", "PREFER_PRECISION_CONSTRAINTS"}


def test_what_the_parser_says_is_told_with_the_node(kit: Kit, tmp_path: Path):
    model = str(write_cnn(tmp_path / "model.onnx", int8=True, fp16=True))
    answers = {"OnnxParser.parse_from_file": False, "OnnxParser.num_errors": 1}
    (told,) = run(kit.release.version, [{"kit": {"model": model, "name": "m"}, "answers": answers}], tmp_path)
    assert told["error"].startswith("TensorRT cannot read m: ")
    assert "(node " in told["error"]
