"""The example that reads text builds, and its gates pass; test_serve.py has the other one, and serves it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from command_line import program
from mnist_build import EXAMPLES


@pytest.fixture(scope="module", autouse=True)
def prepared():
    subprocess.run([sys.executable, str(EXAMPLES / "prepare.py")], check=True)


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
