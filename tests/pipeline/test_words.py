"""Messages name what the user knows, and what to type next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from command_line import Ran, done, trtcompress
from small_builds import QUICK, Small, answers, small_classifier
from trtcompress import build, load_config
from trtcompress.api import BuildOptions
from trtcompress.cli.output import print_table


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


@pytest.fixture(scope="module")
def failing(small) -> tuple[Path, Ran]:
    """A build whose engine is not as accurate as it was asked to be, in float neither."""
    made = ("--out", small.folder / "out", "--store", small.folder / "store", "--target", "cpu:int8", *QUICK)
    gates = ("--set", "gates={min_cosine: 1}", "--set", "name=failing", "--set", "prune={macs: 0.6, multiple: 1}")
    return small.folder / "out/failing", trtcompress("build", small.model, "--data", small.data, *made, *gates)


def test_an_int8_engine_that_is_not_accurate_gets_next_steps(failing):
    _, ran = failing
    assert ran.code == 1
    hint, of_the_cut = [line for line in ran.err.splitlines() if line.startswith("hint")]
    assert "raise prune.macs" in of_the_cut
    assert "--set quantize.method=percentile" in hint
    assert "--target cpu:float" in hint


def test_int8_that_misses_the_accuracy_gives_way_to_float(small, tmp_path):
    command = ("build", small.model, "--data", small.data, "--out", tmp_path, "--store", small.folder / "store")
    ran = done(*command, *QUICK, "--set", "gates={min_cosine: 1}")
    assert "INT8 is not worth it here" in ran.out + ran.err
    assert "--set quantize.method" not in ran.err


def test_a_build_that_passes_gets_no_such_hint(small, tmp_path):
    command = ("build", small.model, "--data", small.data, "--out", tmp_path, "--store", small.folder / "store")
    ran = done(*command, "--target", "cpu:float", *QUICK, "--set", "gates={min_cosine: 0.9}")
    assert "hint" not in ran.err
    report = (tmp_path / "small/report.md").read_text()
    assert "| equal |" in report
    assert "999" not in report


def test_package_warns_of_an_engine_that_failed_a_gate(failing, tmp_path):
    ran = done("package", failing[0], "-o", tmp_path / "repository")
    assert "warning: cpu: a gate failed in the build: min_cosine" in ran.err


def test_tables_cut_no_name_short(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    name = "rtx-3090+rtx-4090/cpu-int8-of-a-long-name"
    print_table(("target", "engine", "gates"), [(name, name, "pass")])
    shown = capsys.readouterr().out
    assert "…" not in shown
    cells = [[cell.strip() for cell in line.split("│")] for line in shown.splitlines() if "│" in line]
    assert name in "".join(row[1] for row in cells)


def test_no_rows_no_table(small):
    ran = done("cache", "verify", "--store", small.folder / "an-empty-store")
    assert ran.out == ""
    assert "0 damaged entries" in ran.err


def test_a_dry_run_says_what_may_be_reused(small, tmp_path):
    ran = done("build", small.model, "--data", small.data, "--store", tmp_path, "--dry-run")
    states = {line[36:].strip() for line in ran.out.splitlines()}
    assert states == {"run", "run (reused if what comes before it comes out the same)"}
