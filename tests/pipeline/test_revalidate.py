"""`validate`: an engine folder, a build folder or an ONNX file against a reference, with gates."""

import json
import re

import numpy as np
import pytest

from command_chain import chain
from command_line import done, trtcompress
from small_builds import Small, small_classifier

QUICK = ("--seconds", "0.01")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    """With a quantized model and ranges beside it."""
    made = small_classifier(tmp_path_factory.mktemp("small"))
    done("calibrate", made.model, "--data", made.data, "-o", made.folder / "ranges.json")
    done("quantize", made.model, "--ranges", made.folder / "ranges.json", "-o", made.folder / "int8.onnx")
    return made


def validate(small: Small, subject: object, *more: object):
    return trtcompress("validate", subject, "--reference", small.model, "--data", small.data, *QUICK, *more)


def test_a_model_equals_itself(small):
    ran = validate(small, small.model, "--json")
    assert (ran.code, ran.json["verdict"]) == (0, "pass")
    assert (ran.json["outputs"][0]["max_abs"], ran.json["outputs"][0]["cosine"]) == (0, 1)
    assert ran.json["metrics"]["top1"]["value"] == 1, "the data has labels, so top1 is taken"


@pytest.mark.parametrize("target", ["rtx-4090", "rtx-4090:fp8"])
def test_an_onnx_file_for_a_gpu_is_emulated(small, tmp_path, target):
    made = tmp_path / "gpu.onnx"
    done("quantize", small.model, "--target", target, "--ranges", small.folder / "ranges.json", "-o", made)
    ran = validate(small, made, "--json", "--min-cosine", "0.9", "--min-speedup", "0.001", "--strict")
    assert (ran.code, ran.json["verdict"], ran.json["emulated"]) == (1, "not_measured", True)
    verdicts = {gate["gate"]: gate["verdict"] for gate in ran.json["gates"]}
    assert verdicts["min_cosine:logits[emulated]"] == "pass"
    assert verdicts["min_cosine:logits"] == verdicts["min_speedup"] == "not_measured"
    assert ran.json["speeds"] == []
    assert "gpu.onnx is quantized for a GPU" in ran.err


def test_tables_for_people(small):
    ran = validate(small, small.folder / "int8.onnx", "--max-metric-drop", "1")
    assert ran.code == 0, ran.err
    for column in ("max abs", "least cosine", "SNR dB", "95 % interval", "p99 ms", "verdict"):
        assert column in ran.out


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_failed_gate_exits_1_and_says_by_how_much(small, flags):
    ran = validate(small, small.folder / "int8.onnx", "--min-cosine", "1", *flags)
    assert ran.code == 1
    told = re.search(r"FAILED min_cosine:logits: (\S+) is (\S+) below the limit of 1", ran.err)
    assert told
    assert float(told[1]) + float(told[2]) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("gate", "limit", "words"),
    [
        ("--max-size-mb", "0.001", "above the limit of 0.001"),
        ("--max-latency-ms", "0.000001", "above the limit of 1e-06"),
        ("--min-speedup", "1000", "below the limit of 1000"),
    ],
)
def test_every_gate_can_fail(small, gate, limit, words):
    ran = validate(small, small.folder / "int8.onnx", gate, limit)
    assert ran.code == 1
    assert f"FAILED {gate.removeprefix('--').replace('-', '_')}" in ran.err
    assert words in ran.err


def test_a_wrong_model_fails_with_no_gate_given(small, tmp_path):
    other = small_classifier(tmp_path)
    broken = tmp_path / "broken.npz"
    np.savez(broken, x=other.samples["x"], labels=(other.samples["labels"] + 1) % 10)
    quantized = tmp_path / "worse.onnx"
    weights = small.folder / "other.json"
    ranges = json.loads((small.folder / "ranges.json").read_text())
    for tensor in ranges["tensors"].values():
        if tensor["threshold"]:
            tensor["threshold"] /= 20
            tensor["max"] /= 20
            tensor["min"] /= 20
    weights.write_text(json.dumps(ranges))
    done("quantize", small.model, "--ranges", weights, "-o", quantized)
    ran = validate(small, quantized, "--json")
    assert (ran.code, ran.json["verdict"]) == (1, "fail")
    assert {gate["gate"] for gate in ran.json["gates"]} == {
        "max_metric_drop:top1",
        "min_cosine:logits",
        "min_snr_db:logits",
    }


def test_an_engine_that_cannot_run_here_is_not_measured_and_strict_says_1():
    made = chain()
    engine = ("validate", "engine-rtx-4090", "--reference", "exported.onnx", "--data", "samples.npz", *QUICK)
    loose = ("--max-metric-drop", "0.2", "--min-cosine", "0.9")
    assert trtcompress(*engine, *loose, cwd=made.folder).code == 0
    assert trtcompress(*engine, *loose, "--strict", cwd=made.folder).code == 1
    failed = trtcompress(*engine, "--min-cosine", "1", cwd=made.folder)
    assert failed.code == 1, "its graph is gated all the same"
    assert "min_cosine:logits[emulated]" in failed.err


def test_every_engine_of_a_build_is_validated():
    made = chain()
    ran = trtcompress(
        *("validate", "build/exported", "--reference", "exported.onnx", "--data", "samples.npz", *QUICK),
        *("--max-metric-drop", "0.2", "--json"),
        cwd=made.folder,
    )
    assert ran.code == 0, ran.err
    assert ran.json["verdict"] == "not_measured"
    assert {output["output"] for output in ran.json["outputs"]} == {"cpu:logits", "rtx-4090:logits"}
    assert ran.json["metrics"].keys() == {"cpu:top1", "rtx-4090:top1"}


def test_the_user_s_metric_of_the_working_folder(small, tmp_path):
    (tmp_path / "my_metric.py").write_text(
        "def share(outputs, labels):\n    return (outputs['logits'].argmax(1) == labels).mean()\n"
    )
    ran = trtcompress(
        *("validate", small.model, "--reference", small.model, "--data", small.data, *QUICK, "--json"),
        *("--metric", "my_metric:share"),
        cwd=tmp_path,
    )
    assert ran.code == 0, ran.err
    assert ran.json["metrics"]["my_metric:share"]["value"] == 1
