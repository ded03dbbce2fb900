"""Both examples build, and their gates pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import program
from mnist_build import EXAMPLES, mnist_build


@pytest.fixture(scope="module", autouse=True)
def prepared():
    subprocess.run([sys.executable, str(EXAMPLES / "prepare.py")], check=True)


def gates(result: dict) -> dict[str, set[str]]:
    return {target["target"]: {gate["verdict"] for gate in target["gates"]} for target in result["targets"]}


def test_mnist_from_pytorch():
    result = mnist_build()
    assert (result["verdict"], gates(result)["cpu"]) == ("not_measured", {"pass"})
    assert gates(result)["rtx-4090"] == {"pass", "not_measured"}
    for target in result["targets"]:
        assert target["metrics"]["top1"]["reference"] > 0.98
        assert target["metrics"]["top1"]["value"] > 0.98
    folder = Path(result["build_dir"])
    ranges = json.loads((folder / "ranges.json").read_text())
    assert (ranges["method"], ranges["samples"]) == ("entropy", 256)
    report = (folder / "report.md").read_text()
    assert "top1" in report
    assert "rtx-4090" in report
    for form in ("triton", "triton-python"):
        assert sorted(path.name for path in (folder / form).iterdir()) == ["cpu", "rtx-4090"]


def test_reader_of_text_from_onnx(tmp_path):
    ran = program(
        *("build", EXAMPLES / "ocr" / "build.yaml", "--out", tmp_path, "--store", tmp_path / "store", "--json"),
        *("--set", "measure.seconds=0.02", "--set", "measure.batches=[1]"),
        *("--set", "data.calibration.samples=16", "--set", "data.evaluation.samples=24"),
    )
    assert ran.code == 0, ran.err
    assert ran.json["verdict"] == "pass"
    metric = ran.json["targets"][0]["metrics"]["lines:exact"]
    assert metric["reference"] > 0.9
    assert metric["value"] >= metric["reference"] - 0.05
