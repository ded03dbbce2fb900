"""The examples that read text, and images with texts, build and pass; test_serve.py has the third, and serves it."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter

import onnx
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


def test_towers_of_images_and_texts(tmp_path):
    """The whole flow with a plain cut, few samples and steps; `make campaign` builds the example as it is."""
    cut = "prune={macs: 0.95, allocation: uniform}"
    trained = "recover={loss: [affinity, logits, features], steps: 2, blockwise: false}"
    ran = program(
        *("build", EXAMPLES / "image_text" / "build.yaml", "--out", tmp_path, "--store", tmp_path / "store", "--json"),
        *("--set", "measure.seconds=0.02", "--set", "measure.batches=[1]", "--set", trained),
        *("--set", cut, "--set", "data.calibration.samples=40", "--set", "data.training.samples=80"),
        *("--set", "data.evaluation.samples=200", "--set", "gates.max_metric_drop=0.05"),
    )
    assert ran.code == 0, ran.err
    assert ran.json["verdict"] == "pass"
    (target,) = ran.json["targets"]
    metric = target["metrics"]["towers:by_prompt"]
    assert metric["reference"] > 0.8
    served = tmp_path / "image_text" / "triton" / "cpu"
    assert {path.name for path in served.iterdir()} >= {"image_text", "image_text_image", "image_text_text"}
    cut, whole = (
        parameters(tmp_path / "image_text" / "models" / name / "model.onnx") for name in ("pruned", "simplified")
    )
    assert cut["features"] < whole["features"], "the tower of images is cut"
    assert cut["bert"] < whole["bert"], "and that of texts"


def parameters(path):
    """How many there are of each part of a model."""
    count = Counter()
    for initializer in onnx.load(path).graph.initializer:
        count[initializer.name.partition(".")[0]] += math.prod(initializer.dims)
    return count
