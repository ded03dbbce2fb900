"""What lies beside an engine builds it again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from small_cnn import write_cnn
from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_engines.backends.trt_process import release_here
from trtcompress_engines.backends.trt_recipe import make_recipe
from trtcompress_engines.backends.trt_reproduce import write_reproduce
from trtcompress_engines.backends.trt_trtexec import trtexec
from trtcompress_engines.targets import resolve_target
from trtcompress_engines.tensorrt_options import TensorRTOptions
from trtcompress_engines.tensorrt_release import Release
from trtcompress_graph.load import read_model
from trtcompress_graph.target import Engine

PROFILES = {"x": ((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))}


def make(path: Path, name: str, options: CompileOptions) -> Engine:
    target = resolve_target(name)
    return backend_for(target).compile(read_model(path), target, "trt", options, path.parent)


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """The folder of an engine for RTX cards, at another place and without its plan."""
    (tmp_path / "there").mkdir()
    path = write_cnn(tmp_path / "there" / "model.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx.data", size_threshold=64)
    options = CompileOptions(PROFILES, tensorrt=TensorRTOptions(workspace_mb=256, optimization_level=2))
    engine = make(path, "rtx-3090+rtx-4090", options)
    shutil.move(path.parent, tmp_path / "here")
    (tmp_path / "here" / engine.path.name).replace(tmp_path / "first.plan")
    return tmp_path / "here"


def test_the_python_script_builds_a_real_engine_again(moved: Path):
    done = run([sys.executable, str(moved / "reproduce.py")])
    assert done.returncode == 0, done.stderr
    again, first = (moved / "model.trt.plan").read_bytes(), (moved.parent / "first.plan").read_bytes()
    assert abs(len(again) - len(first)) < 100  # numbers of the compiler differ from build to build
    assert "wrote" in done.stdout
    assert not (moved / "model.trt.plan.partial").exists()


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.data"])
def test_another_file_is_refused(moved: Path, file: str):
    data = bytearray((moved / file).read_bytes())
    data[-1] ^= 1
    (moved / file).write_bytes(data)
    for command in ([sys.executable, str(moved / "reproduce.py")], ["sh", str(moved / "reproduce.sh")]):
        done = run(command)
        assert done.returncode == 1
        assert file in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    (moved / file).unlink()
    assert "copy the whole folder" in run([sys.executable, str(moved / "reproduce.py")]).stderr


def test_weights_are_put_in_by_the_flavour_that_the_plan_is_of(tmp_path: Path):
    """With the bindings of the extra `rtx`, of which none is called tensorrt."""
    graph = read_model(write_cnn(tmp_path / "model.onnx"))
    write_reproduce(
        make_recipe(release_here("rtx"), graph, "model.plan", TensorRTOptions(strip=True), []), graph, tmp_path
    )
    (tmp_path / "model.plan").write_bytes(b"no plan")
    files = [str(tmp_path / name) for name in ("model.plan", "model.onnx", "whole.plan")]
    done = run([sys.executable, str(tmp_path / "refit.py"), *files])
    assert done.returncode == 1
    assert "the plan does not load here" in done.stderr
    (tmp_path / "reproduce.py").unlink()
    done = run([sys.executable, str(tmp_path / "refit.py"), *files])
    assert "reproduce.py is not here; copy it along" in done.stderr


def test_another_major_release_is_refused(moved: Path):
    script = moved / "reproduce.py"
    script.write_text(script.read_text().replace("'version': '1.7", "'version': '2.0"))
    done = run([sys.executable, str(script)])
    assert done.returncode == 1
    assert "laid out for TensorRT 2.0" in done.stderr
    assert not (moved / "model.trt.plan").exists()


def test_the_shell_script_gives_the_tool_its_arguments(moved: Path, tmp_path: Path):
    tool = tmp_path / "bin" / "tensorrt_rtx"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\n')
    tool.chmod(0o755)
    done = run(["sh", str(moved / "reproduce.sh")], PATH=f"{tool.parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert (moved / "arguments").read_text().splitlines() == [
        "--onnx=model.onnx",
        "--saveEngine=model.trt.plan",
        "--computeCapabilities=86,89",
        "--memPoolSize=workspace:256",
        "--builderOptimizationLevel=2",
        "--minShapes=x:1x3x16x16",
        "--optShapes=x:4x3x16x16",
        "--maxShapes=x:8x3x16x16",
        "--skipInference",
    ]


@pytest.mark.parametrize(
    ("banner", "named", "number"),
    [
        ("[TensorRT v101303] [b9]", "", "101303"),
        ("[TensorRT v8502]", "8.6.1", "8502"),  # what builds counts
        ("", "8.6.1", "8601"),
        ("", "10.3.0", "100300"),
        ("", "", ""),
    ],
)
def test_the_shell_script_puts_scales_under_the_release_of_its_trtexec(
    tmp_path: Path, banner: str, named: str, number: str
):
    folder, cache = tmp_path / "engine", tmp_path / "engine" / "calibration.cache"
    folder.mkdir()
    graph = read_model(write_cnn(folder / "model.onnx"))
    cache.write_text("TRT-101300-EntropyCalibration2\nx: 3c010a14\n")
    recipe = make_recipe(Release("classic", "10.13"), graph, "model.plan", TensorRTOptions(), [PROFILES], implicit=True)
    write_reproduce(recipe, graph, folder)
    tool = tmp_path / "bin" / "trtexec"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "&&&& RUNNING TensorRT.trtexec {banner} # trtexec $*"\necho "$@" >> ran\n')
    tool.chmod(0o755)
    done = run(["sh", str(folder / "reproduce.sh")], PATH=f"{tool.parent}:{os.environ['PATH']}", TENSORRT=named)
    if not number:
        assert done.returncode == 2
        assert "TENSORRT=8.5.2" in done.stderr
        assert (folder / "ran").read_text() == "--help\n"
        return
    assert done.returncode == 0, done.stderr
    assert "--calib=own.calibration.cache" in (folder / "ran").read_text()
    assert (folder / "own.calibration.cache").read_text() == f"TRT-{number}-EntropyCalibration2\nx: 3c010a14\n"


def test_scripts_are_the_same_each_time(tmp_path: Path):
    texts = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        make(write_cnn(folder / "model.onnx", int8=True, fp16=True), "a100", CompileOptions(PROFILES))
        texts.append([(folder / name).read_text() for name in ("reproduce.py", "reproduce.sh")])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("version", ["3.8", "3.9"])
def test_scripts_run_on_the_python_of_a_device(tmp_path: Path, version: str):
    python, chosen = f"python{version}", {"PYENV_VERSION": version}  # where pyenv keeps it, it asks which
    if not shutil.which(python) or run([python, "-c", ""], **chosen).returncode:
        pytest.skip(f"there is no {python}")
    make(write_cnn(tmp_path / "model.onnx", int8=True, fp16=True), "jetson-xavier-nx", CompileOptions(PROFILES))
    done = run([python, str(tmp_path / "reproduce.py")], **chosen)
    assert "No module named 'tensorrt'" in done.stderr  # it got so far


@pytest.mark.parametrize(
    ("version", "flag", "option"),
    [
        ("8.0.1", "STRICT_TYPES", []),
        ("8.2.1", "PREFER_PRECISION_CONSTRAINTS", ["--precisionConstraints=prefer"]),
        ("10.3.0", "PREFER_PRECISION_CONSTRAINTS", ["--precisionConstraints=prefer"]),
    ],
)
def test_layers_on_a_dla_keep_their_types_by_a_flag_that_the_release_has(
    tmp_path: Path, version: str, flag: str, option: list[str]
):
    graph = read_model(write_cnn(tmp_path / "model.onnx"))
    recipe = make_recipe(Release("classic", version), graph, "model.plan", TensorRTOptions(dla=1), [])
    assert set(recipe.flags) - {"FP16", "GPU_FALLBACK"} == {flag}
    command = trtexec(recipe)
    assert "--useDLACore=1" in command, "which has trtexec before 8.2 set that flag"
    assert [one for one in command if "onstraints" in one or "trict" in one] == option


@pytest.mark.parametrize(
    ("version", "asked", "option"),
    [
        ("8.2.1", None, "--workspace=1024"),
        ("8.2.1", 64, "--workspace=64"),
        ("8.4.1", None, ""),
        ("8.4.1", 64, "--memPoolSize=workspace:64"),
    ],
)
def test_trtexec_never_falls_back_to_the_16_mib_of_its_first_releases(
    tmp_path: Path, version: str, asked: int | None, option: str
):
    graph = read_model(write_cnn(tmp_path / "model.onnx"))
    recipe = make_recipe(Release("classic", version), graph, "model.plan", TensorRTOptions(workspace_mb=asked), [])
    assert "".join(one for one in trtexec(recipe) if "workspace" in one) == option
