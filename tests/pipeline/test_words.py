"""Messages name what the user knows, and what to type next."""

from __future__ import annotations

import numpy as np
import pytest

from command_line import done, trtcompress
from small_builds import QUICK, Small, answers, small_classifier


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    """With its ranges, and quantized for the CPU and for TensorRT."""
    made = small_classifier(tmp_path_factory.mktemp("small"), samples=8)
    done("calibrate", made.model, "--data", made.data, "-o", made.folder / "ranges.json")
    for target in ("cpu", "rtx-4090"):
        quantized = made.folder / f"{target}.onnx"
        ranges = ("--ranges", made.folder / "ranges.json")
        done("quantize", made.model, *ranges, "--target", target, "-o", quantized)
    return made


def test_an_error_of_a_stage_names_the_stage_and_the_users_model(small, tmp_path):
    made = ("--out", tmp_path / "out", "--store", tmp_path / "store")
    ran = trtcompress("build", small.folder / "cpu.onnx", "--data", small.data, *made, *QUICK)
    assert ran.code == 3
    error = next(line for line in ran.err.splitlines() if line.startswith("error"))
    assert error.startswith("error: stage ")
    assert f"{small.folder}/cpu.onnx" in error
    assert str(tmp_path / "store") not in ran.err


def test_a_graph_quantized_for_another_target_is_told(small, tmp_path):
    ran = done("compile", small.folder / "rtx-4090.onnx", "--target", "cpu", "-o", tmp_path / "wrong")
    assert "warning: the graph is quantized and not one node of the engine computes in INT8" in ran.err
    assert "--target cpu" in ran.err
    for model in (small.folder / "cpu.onnx", small.model):
        assert "warning" not in done("compile", model, "--target", "cpu", "-o", tmp_path / "right").err


def test_fp32_needs_no_ranges(small, tmp_path):
    command = ("quantize", small.model, "-o", tmp_path / "q.onnx")
    done(*command, "--precision", "float", "--target", "cpu")
    feed = small.samples["x"]
    np.testing.assert_allclose(answers(tmp_path / "q.onnx", x=feed), answers(small.model, x=feed), atol=1e-5)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--target", "cpu"), "INT8 is scaled by them"),
        (("--target", "rtx-4090", "--precision", "float"), "which values would overflow in FP16"),
    ],
)
def test_int8_and_fp16_need_ranges(small, tmp_path, more, why):
    ran = trtcompress("quantize", small.model, "-o", tmp_path / "q.onnx", *more)
    assert ran.code == 2
    assert why in ran.err
    assert f"hint: trtcompress calibrate {small.model}" in ran.err
    assert not (tmp_path / "q.onnx").exists()
