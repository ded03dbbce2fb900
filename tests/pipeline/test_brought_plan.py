"""A data-centre card: the build says how to go on, and the plan that is brought back is packed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from command_line import Ran, done, trtcompress
from small_builds import QUICK, small_classifier

AXES = ("--set", "model.inputs={x: {batch: [1, 2, 4]}}")
GATES = ("--set", "gates={max_metric_drop: 1, min_cosine: 0.5}")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Ran]:
    folder = tmp_path_factory.mktemp("h100")
    small = small_classifier(folder)
    targets = ("--target", "cpu", "--target", "h100")
    made = ("--out", folder / "out", "--store", folder / "store")
    return folder, done("build", small.model, "--data", small.data, *targets, *made, *AXES, *GATES, *QUICK)


@pytest.fixture
def build(built, tmp_path) -> Path:
    """A copy of the build, times of change and all."""
    return Path(shutil.copytree(built[0] / "out/small", tmp_path / "small"))


def engine_folder(build: Path) -> Path:
    (folder,) = (build / "engines/h100").glob("trt-int8")
    return folder


def plan(build: Path) -> Path:
    path = engine_folder(build) / "model.plan"
    path.write_bytes(b"ftrt, of this card")
    return path


def test_the_build_says_how_to_go_on(built):
    folder, ran = built
    build = folder / "out/small"
    assert f"copy {engine_folder(build)}/model.onnx" in ran.err
    assert f"copy model.plan back to {engine_folder(build)}/" in ran.err
    assert f"trtcompress package {build} --target h100" in ran.err
    assert "BUILD_DIR" not in ran.err + (build / "report.md").read_text() + (build / "report.json").read_text()


def test_of_a_jetson_the_kit_is_told_first(built, tmp_path):
    folder, _ = built
    small = small_classifier(tmp_path)
    made = ("--out", tmp_path / "out", "--store", folder / "store")
    ran = done("build", small.model, "--data", small.data, "--target", "jetson-agx-orin", *made, *AXES, *GATES, *QUICK)
    build = tmp_path / "out/small"
    command = f"trtcompress package {build} --target jetson-agx-orin --format jetson -o kit"
    assert f"{command} (in the folder of the config) makes a kit that builds and measures all engines on the" in ran.err
    done(*command.split()[1:-1], tmp_path / "kit")
    assert (tmp_path / "kit/build").is_file()


def test_without_the_plan_a_target_that_was_named_is_an_error(build, tmp_path):
    ran = trtcompress("package", build, "--target", "cpu", "--target", "h100", "-o", tmp_path / "repository")
    assert ran.code == 4
    assert (tmp_path / "repository/cpu/small/config.pbtxt").is_file()
    assert f"copy model.plan back to {engine_folder(build)}/" in ran.err
    assert trtcompress("package", build, "-o", tmp_path / "all").code == 0
    alone = trtcompress("package", build, "--target", "h100", "-o", tmp_path / "alone")
    assert alone.code == 4
    assert "nothing could be packed" in alone.err


def test_the_plan_is_packed(build, tmp_path):
    brought = plan(build)
    ran = done("package", build, "--target", "h100", "-o", tmp_path / "repository")
    assert f"packed {brought}" in ran.err
    model = tmp_path / "repository/small"
    assert (model / "1/model.plan").read_bytes() == brought.read_bytes()
    assert 'platform: "tensorrt_plan"' in (model / "config.pbtxt").read_text()


@pytest.mark.parametrize("command", ["serve-check", "tune"])
def test_an_edited_configuration_is_refused_before_a_server_starts(build, tmp_path, command):
    plan(build)
    done("package", build, "--target", "h100", "-o", tmp_path / "repository")
    config = tmp_path / "repository/small/config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 4", "max_batch_size: 64"))
    ran = trtcompress(command, tmp_path / "repository")
    assert ran.code == 8
    assert "max_batch_size is 64 here, and the plan was packed for at most 4" in ran.err


def test_validate_takes_the_plan_for_the_size_and_the_graph_for_the_rest(build, built):
    plan(build)
    data = ("--reference", built[0] / "small.onnx", "--data", built[0] / "samples.npz", "--axis", "x.batch=1,2,4")
    gates = ("--min-cosine", "0.5", "--max-size-mb", "0.00001")
    ran = trtcompress("validate", engine_folder(build), *data, *gates, "--json")
    assert ran.json["emulated"]
    assert [g["value"] for g in ran.json["gates"] if g["gate"] == "max_size_mb"] == [18 / 1e6]


def test_another_file_in_place_of_the_plan_is_refused(build, tmp_path):
    plan(build).write_bytes(b"not the plan that was meant")
    ran = trtcompress("package", build, "--target", "h100", "-o", tmp_path / "repository")
    assert (ran.code, "no plan of TensorRT" in ran.err, "copy it again" in ran.err) == (3, True, True)
    assert not (tmp_path / "repository").exists()


def test_a_format_that_serves_no_plans_says_so(build, tmp_path):
    ran = trtcompress("package", build, "--target", "h100", "--format", "triton-python", "-o", tmp_path / "repository")
    assert (ran.code, "served by Triton's own backend: package: [triton]" in ran.err) == (4, True)
    assert "trtexec" not in ran.err


def test_an_old_plan_or_one_that_leads_elsewhere_is_refused(build, tmp_path):
    brought = plan(build)
    os.utime(brought, (0, 0))
    ran = trtcompress("package", build, "--target", "h100", "-o", tmp_path / "repository")
    assert (ran.code, "older than the graph" in ran.err) == (3, True)
    brought.unlink()
    (tmp_path / "elsewhere").write_bytes(b"secret")
    brought.symlink_to(tmp_path / "elsewhere")
    ran = trtcompress("package", build, "--target", "h100", "-o", tmp_path / "repository")
    assert (ran.code, "no plan: a link" in ran.err) == (3, True)
    assert not (tmp_path / "repository").exists()
