"""The same build gives the same files; a rebuild does what changed and no more."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from builds import Heard, build, manifest, project, promised, start, write_samples
from trtcompress.asked import encoding_of

EXAMPLES = Path(__file__).parents[2] / "examples"
INT8 = encoding_of("cpu", "int8").name
PRECISION = f"precision {INT8}"
CPU = [f"compile cpu/{INT8}", "validate cpu", "package cpu"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished build for the CPU and a card, and its store."""
    folder = tmp_path_factory.mktemp("built")
    build(project(folder / "p", ["cpu:int8", "rtx-4090:int8"]), folder)
    return folder


def again(built: Path, tmp_path: Path, *overrides: str, config: Path | None = None) -> Heard:
    """Build once more over a copy of the store; which steps worked."""
    shutil.copytree(built / "store", tmp_path / "store")
    return build(config or built / "p/build.yaml", tmp_path, *overrides)[1]


def test_two_builds_in_two_folders_with_two_stores_agree(built: Path, tmp_path: Path):
    _, heard = build(project(tmp_path / "elsewhere", ["cpu:int8", "rtx-4090:int8"]), tmp_path)
    assert heard.reused == []
    one, two = promised(built / "out/small"), promised(tmp_path / "out/small")
    assert one == two
    kinds = {Path(name).suffix for name in one}
    assert {".onnx", ".json", ".pbtxt", ".py"} <= kinds
    plan = next(e for e in manifest(tmp_path / "out/small")["engines"] if e["target"] == "rtx-4090")
    assert (plan["reproducible"], plan["encoding"]) == (False, "trt-int8")
    stable = {"model.plan", "model.plan.sha256", "model.trt-int8.plan", "engine.json"}
    left_out = {Path(name).name for name in manifest(built / "out/small")["files"].keys() - one.keys()}
    assert left_out <= stable


def test_jobs_do_not_change_what_comes_out(built: Path, tmp_path: Path):
    build(built / "p/build.yaml", tmp_path, jobs=3)
    assert promised(tmp_path / "out/small") == promised(built / "out/small")


def test_a_rebuild_works_nothing(built: Path, tmp_path: Path):
    heard = again(built, tmp_path)
    assert heard.worked == []
    assert len(heard.reused) == len(manifest(built / "out/small")["stages"])
    plans = [state["sha256"] for name, state in manifest(built / "out/small")["files"].items() if ".plan" in name]
    copies = [state["sha256"] for name, state in manifest(tmp_path / "out/small")["files"].items() if ".plan" in name]
    assert plans == copies  # a finished plan is reused, byte for byte


def test_a_rebuild_of_the_command_line_loads_no_heavy_library(built: Path):
    """It has a second in all, which importing torch alone takes."""
    start(built / "p/build.yaml", built).communicate()
    process = start(built / "p/build.yaml", built, environment={"PYTHONPROFILEIMPORTTIME": "1"})
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert err.count("reused") == len(manifest(built / "out/small")["stages"])
    loaded = {line.rpartition("|")[2].strip() for line in err.splitlines() if line.startswith("import time:")}
    assert "pydantic" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "onnxscript", "numba", "polygraphy", "tensorrt_rtx", "scipy"}


def test_a_build_moved_with_its_store_is_reused(built: Path, tmp_path: Path):
    shutil.copytree(built / "p", tmp_path / "p")
    assert again(built, tmp_path, config=tmp_path / "p/build.yaml").worked == []


def test_a_changed_target_is_built_alone(built: Path, tmp_path: Path):
    heard = again(built, tmp_path, "targets=[cpu:int8, rtx-3090:int8]")
    assert "compile rtx-3090/trt-int8" in heard.worked
    assert all("rtx-3090" in label for label in heard.worked)


def test_a_target_less_works_nothing(built: Path, tmp_path: Path):
    assert again(built, tmp_path, "targets=[cpu:int8]").worked == []


def on_cpu(built: Path, tmp_path: Path, *overrides: str, config: Path | None = None) -> list[str]:
    return again(built, tmp_path, "targets=[cpu:int8]", *overrides, config=config).worked


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("gates.min_cosine=0.8", ["validate cpu"]),
        ("measure.batches=[1]", ["validate cpu"]),
        ("triton.instances=2", ["package cpu"]),
        ("package=[triton, triton-python]", ["package cpu"]),
        ("name=other", ["package cpu"]),
        ("metric=[top5]", ["validate cpu"]),
        ("quantize.skip=[fc]", [f"precision {INT8}", f"quantize {INT8}", *CPU]),
        ("quantize.method=mse", ["calibrate", f"precision {INT8}", f"quantize {INT8}", *CPU]),
        ("quantize.batch=3", ["calibrate"]),  # ranges do not depend on it, so that all after is as it was
    ],
)
def test_a_changed_key_runs_what_depends_on_it(built: Path, tmp_path: Path, override: str, expected: list[str]):
    worked = on_cpu(built, tmp_path, override)
    # The plan of precision names node by node; it may come out the same from other ranges
    assert [label for label in worked if label != f"precision {INT8}"] == [
        label for label in expected if label != f"precision {INT8}"
    ]


def test_changed_evaluation_data_validates_again(built: Path, tmp_path: Path):
    write_samples(tmp_path / "other.npz", seed=5)
    assert on_cpu(built, tmp_path, f"data.evaluation={tmp_path / 'other.npz'}") == [PRECISION, "validate cpu"]


def test_changed_samples_calibrate_again(built: Path, tmp_path: Path):
    shutil.copytree(built / "p", tmp_path / "p")
    write_samples(tmp_path / "p/samples.npz", seed=6)
    worked = on_cpu(built, tmp_path, config=tmp_path / "p/build.yaml")
    assert "calibrate" in worked
    assert "simplify" not in worked


def test_the_same_samples_in_a_folder_are_other_data_with_the_same_ranges(built: Path, tmp_path: Path):
    """Calibration runs, finds the same, and everything after is as it was."""
    (tmp_path / "batches").mkdir()
    with np.load(built / "p/samples.npz") as arrays:
        for index in range(0, 12, 4):
            np.savez(tmp_path / f"batches/{index:02}.npz", **{k: v[index : index + 4] for k, v in arrays.items()})
    worked = on_cpu(built, tmp_path, f"data.calibration.source={tmp_path / 'batches'}", "data.evaluation=samples.npz")
    assert {"calibrate"} <= set(worked) <= {"calibrate", "export", PRECISION, "validate cpu"}


def test_no_cache_works_everything_and_keeps_nothing(built: Path, tmp_path: Path):
    shutil.copytree(built / "store", tmp_path / "store")
    _, heard = build(built / "p/build.yaml", tmp_path, "targets=[cpu:int8]", cache=False)
    assert heard.reused == []
    kept = {path.name for path in (built / "store/objects").glob("*/*")}
    assert {path.name for path in (tmp_path / "store/objects").glob("*/*")} == kept
    assert list((tmp_path / "store/tmp").iterdir()) == []


def test_a_rebuild_touches_no_file_but_the_reports(built: Path):
    folder = built / "out/small"
    build(built / "p/build.yaml", built)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    time.sleep(0.05)
    build(built / "p/build.yaml", built)
    touched = {path.name for path, stamp in before.items() if path.stat().st_mtime_ns != stamp}
    assert touched <= {"report.json", "report.md", "junit.xml", "manifest.json", "engine.json"}


def test_a_pytorch_model_gives_the_same_files_in_two_processes(tmp_path: Path):
    """From two copies of the project, with other hashes of strings in each process."""
    chosen = ["targets=[cpu:int8]", "data.calibration.samples=16", "data.evaluation.samples=64", "measure.seconds=0.01"]
    chosen += ["prune.macs=0.9"]  # so few samples bear no deep cut
    processes = []
    for seed in ("1", "2"):
        shutil.copytree(EXAMPLES / "mnist", tmp_path / seed / "p", ignore=shutil.ignore_patterns("__pycache__"))
        arguments = [argument for key in chosen for argument in ("--set", key)]
        environment = {"PYTHONHASHSEED": seed}
        processes.append(start(tmp_path / seed / "p/build.yaml", tmp_path / seed, *arguments, environment=environment))
    ends = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    one, two = (promised(tmp_path / seed / "out/mnist") for seed in ("1", "2"))
    assert one == two
    assert {"models/exported/model.onnx", "ranges.json", "triton/cpu/mnist/config.pbtxt"} <= one.keys()
