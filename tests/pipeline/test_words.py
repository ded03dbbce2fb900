"""Messages name what the user knows, and what to type next."""

from __future__ import annotations

import pytest

from command_line import done, trtcompress
from small_builds import QUICK, Small, small_classifier


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
