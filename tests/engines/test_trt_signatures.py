"""Every call of TensorRT is checked by the signatures of its bindings, release by release.

The classic API needs a GPU. Its bindings tell their signatures without one (`benchmarks/trt_signatures.py`), and a
double made of them (`trt_double.py`) takes what they take: the worker, Polygraphy's loaders under it, and the scripts
beside an engine run over it as they are.
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import trt_double
from small_cnn import write_cnn
from trtcompress_engines.backends import trt_calibrator
from trtcompress_engines.backends.trt_calibrator import DeviceBatches, check_batches
from trtcompress_engines.backends.trt_recipe import Recipe, make_recipe
from trtcompress_engines.backends.trt_reproduce import write_reproduce
from trtcompress_engines.tensorrt_options import TensorRTOptions
from trtcompress_engines.tensorrt_release import Feature, Release
from trtcompress_graph.errors import DataError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model

TESTS = Path(__file__).parents[1]
RELEASES = trt_double.releases()
PROFILES = [
    {"x": ((1, 3, 16, 16), (1, 3, 16, 16), (1, 3, 16, 16))},
    {"x": ((2, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))},
]
CACHE_TEXT = "TRT-8600-EntropyCalibration2\nx: 3c010a14\n"
ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "limits": {"workspace_mb": 64, "optimization_level": 5},
    "portable": {"hardware_compatible": True, "version_compatible": True},
    "refit": {"refit": True, "sparse": True},
    "strip": {"strip": True, "weight_streaming": True},
    "dla": {"dla": 1},
}


def test_the_releases_that_are_promised_are_there():
    assert RELEASES == ["10.0.1", "10.16.1.11", "10.3.0", "11.4.0.106", "8.6.1"]
    for release in RELEASES:
        told = trt_double.read(release)
        assert told["version"] == release
        assert release in told["wheel"]
        assert len(told["sha256"]) == 64


API: dict[Feature, tuple[str, str]] = {
    "workspace_mb": ("MemoryPoolType", "WORKSPACE"),
    "optimization_level": ("IBuilderConfig", "builder_optimization_level"),
    "timing_cache": ("IBuilderConfig", "set_timing_cache"),
    "hardware_compatible": ("IBuilderConfig", "hardware_compatibility_level"),
    "version_compatible": ("BuilderFlag", "VERSION_COMPATIBLE"),
    "refit": ("BuilderFlag", "REFIT"),
    "strip": ("BuilderFlag", "STRIP_PLAN"),
    "weight_streaming": ("BuilderFlag", "WEIGHT_STREAMING"),
    "sparse": ("BuilderFlag", "SPARSE_WEIGHTS"),
    "implicit": ("IBuilderConfig", "int8_calibrator"),
}


@pytest.mark.parametrize("release", RELEASES)
def test_the_table_of_features_is_what_the_bindings_have(release: str):
    trt = trt_double.double(trt_double.read(release))
    for feature, (owner, member) in API.items():
        there = hasattr(getattr(trt, owner), member)
        assert there is not bool(Release("classic", release).lacks(feature)), feature


@pytest.mark.parametrize("release", RELEASES)
def test_how_types_are_taken_is_what_the_bindings_have(release: str):
    trt = trt_double.double(trt_double.read(release))
    found = Release("classic", release)
    assert hasattr(trt.BuilderFlag, "INT8") is (found.typing != "always")
    assert hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") is (found.typing != "flags")
    assert hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH") >= found.explicit_batch


@dataclass(frozen=True)
class Case:
    """A build that a release has, what it called, and what the script beside it called."""

    recipe: Recipe
    worker: dict[str, Any]
    script: dict[str, Any]


@pytest.fixture(scope="module", params=RELEASES)
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Every build of ASKED that the release has, and those of the implicit path."""
    release = Release("classic", request.param)
    recipes: dict[str, Recipe] = {}
    asked: list[dict[str, Any]] = []
    for name, folder, recipe, batches in layouts(release, tmp_path_factory.mktemp("double")):
        recipes[name] = recipe
        onnx = str(folder / recipe.onnx)
        asked.append({"onnx": onnx, "folder": str(folder), "recipe": asdict(recipe), "batches": batches})
        asked.append({"script": str(folder / "reproduce.py")})
        if refits(recipe):
            files = [str(folder / recipe.plan), onnx, str(folder / "whole.plan")]
            asked.append({"script": str(folder / "refit.py"), "arguments": files})
    told = iter(run(request.param, asked, tmp_path_factory.mktemp("cases") / "cases.json"))
    found = {}
    for name, recipe in recipes.items():
        found[name] = Case(recipe, next(told), next(told))
        if refits(recipe):
            found[f"{name} refitted"] = Case(recipe, {}, next(told))
    return found


def refits(recipe: Recipe) -> bool:
    return recipe.release.number >= (10, 0) and not {"STRIP_PLAN", "REFIT"}.isdisjoint(recipe.flags)


def laid_out(
    release: Release, options: TensorRTOptions, folder: Path, *, implicit: bool, tf32: bool = False
) -> tuple[Path, Recipe]:
    shutil.copytree(graphs(implicit).path.parent, folder)
    graph = replace(graphs(implicit), path=folder / "model.onnx")
    recipe = make_recipe(release, graph, "model.plan", options, PROFILES, implicit=implicit, tf32=tf32)
    if implicit:
        (folder / "calibration.cache").write_text(own_cache(release.version))  # as the worker leaves it
    write_reproduce(recipe, graph, folder)
    if implicit:
        (folder / "calibration.cache").write_text(CACHE_TEXT)
    assert (folder / "refit.py").exists() is refits(recipe)
    return folder, recipe


def own_cache(version: str) -> str:
    """The scales of CACHE_TEXT under the header of a release."""
    number = {"8.6.1": 8601, "10.0.1": 100001, "10.3.0": 100300, "10.16.1.11": 101601}[version]
    return CACHE_TEXT.replace("TRT-8600-", f"TRT-{number}-")


@cache
def graphs(implicit: bool) -> Model:
    """A float graph, or one with Q/DQ pairs."""
    folder = Path(tempfile.mkdtemp(prefix="trt-signatures-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return read_model(write_cnn(folder / "model.onnx", int8=not implicit, fp16=not implicit))


def layouts(release: Release, base: Path) -> Iterator[tuple[str, Path, Recipe, str]]:
    """Name, folder, recipe and samples of each build."""
    for name, wanted in ASKED.items():
        options = TensorRTOptions(**wanted)
        if not any(release.lacks(feature) for feature in options.asked):
            yield name, *laid_out(release, options, base / name, implicit=name == "dla"), ""
    yield "tf32", *laid_out(release, TensorRTOptions(), base / "tf32", implicit=False, tf32=True), ""
    if not release.lacks("implicit"):
        yield "ranges", *laid_out(release, TensorRTOptions(), base / "ranges", implicit=True), ""
        folder, recipe = laid_out(release, TensorRTOptions(), base / "samples", implicit=True)
        (folder / "batches").mkdir()
        for index, rows in enumerate((4, 4, 2, 8)):
            values = np.zeros((rows, 3, 16, 16), np.float16)
            np.savez(folder / "batches" / f"{index}.npz", x=values)
        (folder / "calibration.cache").unlink()  # TensorRT makes it
        write_reproduce(recipe, replace(graphs(True), path=folder / "model.onnx"), folder)
        yield "samples", folder, recipe, str(folder / "batches")


def run(release: str, asked: list[dict[str, Any]], file: Path) -> list[dict[str, Any]]:
    file.write_text(json.dumps(asked))
    command = [sys.executable, str(TESTS / "trt_on_double.py"), release, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])  # Polygraphy may say something before
    return found


def settings(calls: list[list[Any]]) -> list[str]:
    """What was set of the network, its profiles and the builder's configuration; order does not count."""
    kept = ("create_network", "add_optimization_profile", "set_shape", "build_serialized_network")
    said = [
        call
        for call in calls
        if call[1] in kept
        or (call[0] == "IBuilderConfig" and not call[1].startswith(("get_", "int8_", "create_")))
        or call[:2] == ["OnnxParser", "set_flag"]
    ]
    # Polygraphy sets these first, as they are from the start
    by_itself = (["IBuilderConfig", "DLA_core", 0], ["IBuilderConfig", "set_flag", "TF32"])
    said = [call for call in said if call not in by_itself]
    return sorted({json.dumps(call) for call in said})


def test_every_call_is_one_that_the_bindings_take(cases: dict[str, Case]):
    for name, case in cases.items():
        assert case.worker.get("error", "") == "", name
        assert case.script["error"] == "", name


def test_the_script_sets_what_the_worker_sets(cases: dict[str, Case]):
    for name, case in cases.items():
        if not name.endswith("refitted") and name != "samples":
            assert settings(case.script["calls"]) == settings(case.worker["calls"]), name


def test_what_is_asked_is_set(cases: dict[str, Case]):
    release = cases["plain"].recipe.release
    enums = trt_double.read(release.version)["enums"]["BuilderFlag"]
    for name, case in cases.items():
        if name.endswith("refitted"):
            continue
        calls = case.worker["calls"]
        flags = {enums[call[2]] for call in calls if call[:2] == ["IBuilderConfig", "set_flag"]}
        assert flags - {enums["TF32"]} == {enums[flag] for flag in case.recipe.flags}, name
        profiles = [call[2:] for call in calls if call[:2] == ["IOptimizationProfile", "set_shape"]]
        if name == "dla":
            assert {str(shapes) for shapes in profiles} == {str(["x", *[[1, 3, 16, 16]] * 3])}, "it takes no others"
        else:
            assert ["x", [2, 3, 16, 16], [4, 3, 16, 16], [8, 3, 16, 16]] in profiles, name
        assert (["IBuilderConfig", "clear_flag", "TF32"] in calls) is (name != "tf32"), name
    if "limits" in cases:
        calls = cases["limits"].worker["calls"]
        assert ["IBuilderConfig", "set_memory_pool_limit", "WORKSPACE", 64 << 20] in calls
        assert ["IBuilderConfig", "builder_optimization_level", 5] in calls
    if "portable" in cases:
        calls = cases["portable"].worker["calls"]
        assert ["IBuilderConfig", "hardware_compatibility_level", "AMPERE_PLUS"] in calls
        assert (["OnnxParser", "set_flag", "NATIVE_INSTANCENORM"] in calls) is (release.number < (10, 0))
    if "dla" in cases:
        calls = cases["dla"].worker["calls"]
        assert ["IBuilderConfig", "default_device_type", "DLA"] in calls
        assert [call for call in calls if call[1] == "DLA_core"][-1] == ["IBuilderConfig", "DLA_core", 1]


def test_networks_are_typed_as_the_release_takes_it(cases: dict[str, Case]):
    release = cases["plain"].recipe.release
    flags = trt_double.read(release.version)["enums"]["NetworkDefinitionCreationFlag"]
    wanted = "EXPLICIT_BATCH" if release.number < (10, 0) else "STRONGLY_TYPED"
    made = [call for call in cases["plain"].worker["calls"] if call[1] == "create_network"]
    assert made == [["Builder", "create_network", 1 << flags[wanted]]]
    if "ranges" in cases and release.number >= (10, 0):  # implicit scales need weak types
        assert ["Builder", "create_network", 0] in cases["ranges"].worker["calls"]


def test_scales_of_a_cache_are_handed_out_and_nothing_is_measured(cases: dict[str, Case]):
    if "ranges" not in cases:
        assert cases["plain"].recipe.release.number >= (11, 0)
        return
    for name in {"ranges", "dla"} & set(cases):
        found = cases[name]
        for by in (found.worker, found.script):
            assert by["calibrated"]["batches"] == []
            assert by["calibrated"]["cache"] == own_cache(found.recipe.version), "one of another release is ignored"


def test_nothing_is_built_where_tensorrt_ignores_the_scales(tmp_path: Path):
    folder, recipe = laid_out(Release("classic", "10.3.0"), TensorRTOptions(), tmp_path / "m", implicit=True)
    worker = {"onnx": str(folder / "model.onnx"), "folder": str(folder), "recipe": asdict(recipe)}
    asked = [{**case, "ignores_caches": True} for case in (worker, {"script": str(folder / "reproduce.py")})]
    for told in run("10.3.0", asked, tmp_path / "cases.json"):
        assert "did not take the scales of calibration.cache" in told["error"]
        assert not (folder / "model.plan").exists()


def test_samples_go_through_buffers_of_pycuda(cases: dict[str, Case]):
    if "samples" not in cases:
        return
    found = cases["samples"].worker["calibrated"]
    assert found["batches"] == [[1000], [1000], [1000], [2000]]  # one buffer, until a batch is larger
    assert [copied for copied in found["copied"] if copied[0] in (1000, 2000)] == [
        [1000, [4, 3, 16, 16], "float32"],
        [1000, [4, 3, 16, 16], "float32"],
        [1000, [2, 3, 16, 16], "float32"],
        [2000, [8, 3, 16, 16], "float32"],
    ]


@pytest.mark.parametrize("name", ["strip", "refit"])
def test_a_plan_that_can_be_refitted_takes_weights(cases: dict[str, Case], name: str):
    if f"{name} refitted" not in cases:
        assert cases["plain"].recipe.release.number < (10, 0)
        return
    called = [call[:2] for call in cases[f"{name} refitted"].script["calls"]]
    for wanted in (
        ["Runtime", "deserialize_cuda_engine"],
        ["OnnxParserRefitter", "refit_from_file"],
        ["Refitter", "refit_cuda_engine"],
        ["ISerializationConfig", "clear_flag"],
        ["ICudaEngine", "serialize_with_config"],
    ):
        assert wanted in called


def test_another_release_than_was_laid_out_is_refused(tmp_path: Path):
    folder, recipe = laid_out(Release("classic", "10.3.0"), TensorRTOptions(), tmp_path / "m", implicit=False)
    asked = [{"onnx": str(folder / "model.onnx"), "folder": str(folder), "recipe": asdict(recipe)}]
    (told,) = run("10.0.1", asked, tmp_path / "cases.json")
    assert told["error"] == "the build was laid out for TensorRT 10.3.0, and 10.0.1 is installed"


def test_a_timing_cache_of_another_gpu_is_refused(tmp_path: Path):
    folder, recipe = laid_out(Release("classic", "10.3.0"), TensorRTOptions(), tmp_path / "m", implicit=False)
    (folder / "timing.cache").write_bytes(b"tactics")
    mismatch = {"IBuilderConfig.set_timing_cache": False}
    case = {"onnx": str(folder / "model.onnx"), "folder": str(folder), "recipe": asdict(recipe), "answers": mismatch}
    asked = [case, {"script": str(folder / "reproduce.py"), "answers": mismatch}]
    for told in run("10.3.0", asked, tmp_path / "cases.json"):
        assert "is of another release of TensorRT or another GPU" in told["error"]


def test_batches_are_checked_before_tensorrt_gets_bare_pointers(tmp_path: Path):
    with pytest.raises(DataError, match="no samples to calibrate on"):
        check_batches(tmp_path, {"x": (4, 3)}, Release("classic", "10.3.0"))
    np.savez(tmp_path / "0.npz", x=np.zeros((4, 3), np.float32))
    check_batches(tmp_path, {"x": (4, 3)}, Release("classic", "10.3.0"))
    np.savez(tmp_path / "1.npz", x=np.zeros((4, 2), np.float32))
    with pytest.raises(DataError, match=r"a batch of the shapes .*\(4, 2\)") as caught:
        check_batches(tmp_path, {"x": (4, 3)}, Release("classic", "10.3.0"))
    assert caught.value.where.endswith("1.npz")


def test_a_calibration_that_ends_before_its_samples_do_is_an_error(tmp_path: Path):
    folder, recipe = laid_out(Release("classic", "8.6.1"), TensorRTOptions(), tmp_path / "m", implicit=True)
    (folder / "calibration.cache").unlink()
    (folder / "batches").mkdir()
    for name in "01":
        np.savez(folder / "batches" / f"{name}.npz", x=np.zeros((4, 3, 16, 16), np.float32))
    worker = {"onnx": str(folder / "model.onnx"), "folder": str(folder), "recipe": asdict(recipe)}
    case = {**worker, "batches": str(folder / "batches"), "ignores_caches": True}  # it asks for one batch
    (told,) = run("8.6.1", [case], tmp_path / "cases.json")
    assert told["error"] == "TensorRT 8.6.1 did not take all samples that it was to calibrate on"
    assert not (folder / "model.plan").exists()


@pytest.mark.parametrize(("version", "kind"), [("8.4.1", "int32"), ("8.6.2", "int32"), ("10.3.0", "int64")])
@pytest.mark.parametrize("with_pycuda", [True, False])
def test_int64_samples_are_given_as_the_release_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, kind: str, with_pycuda: bool
):
    from polygraphy.backend.base.util import check_inputs
    from polygraphy.common import TensorMetadata

    release, ids = Release("classic", version), np.array([[101, 2023, -1]])
    np.savez(tmp_path / "0.npz", ids=ids)
    check_batches(tmp_path, {"ids": (1, 3)}, release)
    for name in ("pycuda", "pycuda.driver", "pycuda.autoprimaryctx"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    copied: list[np.ndarray] = []
    driver: Any = sys.modules["pycuda.driver"]
    driver.mem_alloc, driver.memcpy_htod = (lambda size: 1000), (lambda place, array: copied.append(array))
    sys.modules["pycuda"].driver = driver  # type: ignore[attr-defined]
    monkeypatch.setattr(trt_calibrator, "find_spec", lambda name: with_pycuda or None)
    (batch,) = DeviceBatches([tmp_path / "0.npz"], release)
    if with_pycuda:
        assert batch == {"ids": 1000}
    else:
        check_inputs(batch, TensorMetadata().add("ids", np.dtype(kind), (1, 3)))  # as Polygraphy does in get_batch
        copied.append(batch["ids"])
    assert copied[0].tobytes() == ids.astype(kind).tobytes()


def test_int64_samples_beyond_int32_are_refused_where_they_are_read_so(tmp_path: Path):
    np.savez(tmp_path / "0.npz", ids=np.array([[1, 1 << 31]]))
    check_batches(tmp_path, {"ids": (1, 2)}, Release("classic", "10.3.0"))
    told = "input 'ids' has 2147483648, and TensorRT 8.6.2 reads its int64 inputs as int32"
    with pytest.raises(DataError, match=told) as caught:
        check_batches(tmp_path, {"ids": (1, 2)}, Release("classic", "8.6.2"))
    assert caught.value.where.endswith("0.npz")


RIGHT_AND_WRONG = """
import json, sys
sys.path[:0] = [{tests!r}, {benchmarks!r}]
from trtcompress_engines.backends.trt_load import load
from trt_double import double
from trt_signatures import signatures

def tried(trt):
    class Quiet(trt.ILogger):
        def __init__(self): trt.ILogger.__init__(self)
        def log(self, severity, message): pass
    logger = Quiet()
    builder = trt.Builder(logger)
    network, config, profile = (
        builder.create_network(0), builder.create_builder_config(), builder.create_optimization_profile()
    )
    shape, pool = (1, 3), trt.MemoryPoolType.WORKSPACE
    attempts = [
        lambda: config.set_flag(trt.BuilderFlag.REFIT),
        lambda: config.set_flag(flag=trt.BuilderFlag.REFIT),
        lambda: config.set_flag(2),
        lambda: config.set_flag(),
        lambda: config.set_flag(trt.BuilderFlag.INT8),
        lambda: config.set_flag(trt.DeviceType.GPU),
        lambda: config.set_memory_pool_limit(pool, 1 << 20),
        lambda: config.set_memory_pool_limit(pool, "many"),
        lambda: config.set_memory_pool_limit(pool=pool, size=1),
        lambda: setattr(config, "builder_optimization_level", 3),
        lambda: setattr(config, "builder_optimization_level", "high"),
        lambda: setattr(config, "optimization_level", 3),
        lambda: setattr(config, "num_optimization_profiles", 3),
        lambda: config.int8_calibrator,
        lambda: profile.set_shape("x", shape, shape, shape),
        lambda: profile.set_shape("x", shape, shape),
        lambda: profile.set_shape(1, shape, shape, shape),
        lambda: trt.OnnxParser(network, logger),
        lambda: trt.OnnxParser(network),
        lambda: trt.OnnxParser(logger, network),
        lambda: config.create_timing_cache(b""),
        lambda: config.create_timing_cache("text"),
        lambda: builder.build_serialized_network(network),
        lambda: trt.IInt8EntropyCalibrator2,
        lambda: trt.IBuilderConfig(),
    ]
    said = []
    for attempt in attempts:
        try:
            attempt()
            said.append("")
        except (AttributeError, TypeError) as error:
            said.append(type(error).__name__)
    return said

real = load("rtx")
print(json.dumps([tried(real), tried(double(signatures(real)))]))
"""


def test_the_double_takes_and_refuses_what_the_real_module_does():
    """TensorRT for RTX is real here, and its bindings are of the same make."""
    code = RIGHT_AND_WRONG.format(tests=str(TESTS), benchmarks=str(TESTS.parent / "benchmarks"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr
    real, stand_in = json.loads(done.stdout)
    assert stand_in == real
    assert real.count("") >= 7
    assert {"TypeError", "AttributeError"} <= set(real)
