"""Messages name what the user knows, and what to type next."""

from __future__ import annotations

import numpy as np
import pytest

from command_line import done, trtcompress
from small_builds import QUICK, Small, answers, small_classifier
from trtcompress import build, load_config
from trtcompress.api import BuildOptions


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


def test_a_store_that_cannot_be_made(small):
    ran = trtcompress("build", small.model, "--data", small.data, "--store", "/proc/trtcompress", *QUICK)
    assert ran.code == 4
    assert "error: /proc/trtcompress: the store cannot be created here\nhint: name another folder" in ran.err
    assert trtcompress("cache", "ls", "--store", "/proc/trtcompress").code == 4


CONFIG = "{name: net, model: MODEL, data: {calibration: {source: samples.npz}}, targets: [cpu]}"


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("nets.resnet", "hint: a function is named with a colon: 'nets:resnet'"),
        ("smal.onnx", "/small.onnx?"),
        ("other/m.onnx", "hint: give an ONNX file, or `package.module:function`"),
    ],
)
def test_a_model_that_is_not_there(small, tmp_path, model, hint):
    config = small.folder / f"{model.replace('/', '-')}.yaml"
    config.write_text(CONFIG.replace("MODEL", model))
    ran = trtcompress("build", config, "--store", tmp_path)
    assert (ran.code, hint in ran.err, "no such model file" in ran.err) == (2, True, True), ran.err


def test_a_model_file_of_the_command_line_that_is_not_there(small):
    ran = trtcompress("build", small.folder / "smal.onnx", "--data", small.data)
    assert f"hint: did you mean {small.model}?" in ran.err


def test_a_config_that_is_not_there(tmp_path):
    (tmp_path / "text.yaml").touch()
    assert f"hint: did you mean {tmp_path / 'text.yaml'}?" in trtcompress("build", tmp_path / "test.yaml").err
    assert "hint: a config is YAML" in trtcompress("build", tmp_path / "no/such.yaml").err


def test_a_config_that_is_not_yaml(tmp_path):
    (tmp_path / "bad.yaml").write_text("name: [a")
    ran = trtcompress("build", tmp_path / "bad.yaml")
    assert (ran.code, "hint: look for a bracket" in ran.err) == (2, True)


def test_labels_that_are_no_classes_of_the_model(small, tmp_path):
    data = tmp_path / "samples.npz"
    np.savez(data, x=small.samples["x"], labels=np.full(8, 99))
    ran = trtcompress("validate", small.model, "--reference", small.model, "--data", data, "--metric", "top1")
    assert ran.code == 3
    assert "labels run from 99 to 99, the output has classes 0 to 9" in ran.err
    assert "hint: labels count the classes from 0" in ran.err


def test_python_takes_texts_for_paths(small, tmp_path):
    config = tmp_path / "build.yaml"
    config.write_text(CONFIG.replace("MODEL", str(small.model)).replace("samples.npz", str(small.data)))
    options = BuildOptions(out=str(tmp_path / "out"), store=str(tmp_path / "store"), until="simplify")
    result = build(load_config(str(config)), options)
    assert result.build_dir == str(tmp_path / "out/net")
