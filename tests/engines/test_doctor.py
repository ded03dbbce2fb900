from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec

import pytest

from trtcompress_engines import doctor
from trtcompress_engines.doctor import diagnose
from trtcompress_graph.errors import CompileError


@pytest.fixture(scope="module")
def findings() -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in diagnose()}


def test_what_is_here_is_found(findings: dict[str, doctor.Finding]):
    for what in (
        "Python",
        "torch",
        "onnxruntime",
        "polygraphy",
        "ONNX Runtime providers",
        "CPU",
        "engines for this CPU",
    ):
        assert findings[what].ok
    assert "CPUExecutionProvider" in findings["ONNX Runtime providers"].detail
    json.dumps([asdict(finding) for finding in findings.values()])


def test_tensorrt_for_rtx_is_loaded_and_not_only_seen(findings: dict[str, doctor.Finding]):
    assert findings["TensorRT for RTX"].ok
    assert "SM89" in findings["TensorRT for RTX"].detail


def test_a_tritonserver_of_the_wheel_is_found_too(findings: dict[str, doctor.Finding], monkeypatch: pytest.MonkeyPatch):
    if find_spec("pytriton") is None:
        pytest.skip("nvidia-pytriton is not installed")
    assert findings["tritonserver"].ok
    monkeypatch.setattr("trtcompress_engines.triton.installed._in_wheel", lambda: None)
    monkeypatch.setenv("PATH", "")
    (found,) = [finding for finding in diagnose() if finding.what == "tritonserver"]
    assert not found.ok
    assert "pip install nvidia-pytriton" in found.detail


def test_what_is_missing_says_what_to_type(findings: dict[str, doctor.Finding]):
    for what in ("TensorRT", "pycuda"):
        if not findings[what].ok:
            assert findings[what].todo.startswith("pip install '.[")
    assert not findings["engines for Jetson"].ok


def test_tensorrt_that_does_not_load_is_a_finding_and_no_crash(monkeypatch: pytest.MonkeyPatch):
    def broken(flavour: str) -> None:
        raise CompileError("libcudart is missing")

    monkeypatch.setattr(doctor, "probe", broken)
    found = doctor._tensorrt("rtx", "TensorRT for RTX", "")
    assert not found.ok
    assert "libcudart is missing" in found.detail
