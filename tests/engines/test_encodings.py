"""The table of encodings and which of them a target takes."""

from __future__ import annotations

import pytest

from trtcompress_engines.encodings import encoding_for, encodings
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.target import Target


def test_the_registry_holds_these() -> None:
    held = {e.name: (e.float_type, e.activation, e.symmetric, e.weight_bits) for e in encodings().values()}
    assert held == {
        "cpu-fp32": ("float32", None, True, 8),
        "cpu-int8": ("float32", "u8", False, 8),
        "cpu-int8-r7": ("float32", "u8", False, 7),
        "cpu-int8-amx": ("float32", "u8", False, 8),
        "trt-fp16": ("float16", None, True, 8),
        "trt-int8": ("float16", "s8", True, 8),
    }


def test_tensorrt_takes_no_quantized_bias_and_onnxruntime_does() -> None:
    assert [e.name for e in encodings().values() if e.quantized_bias] == ["cpu-int8", "cpu-int8-r7", "cpu-int8-amx"]


def test_reduced_weights_are_all_that_differs_without_vnni() -> None:
    from dataclasses import replace

    full = encodings()["cpu-int8"]
    assert encodings()["cpu-int8-r7"] == replace(full, name="cpu-int8-r7", weight_bits=7)


@pytest.mark.parametrize(("vnni", "amx", "name"), [(True, True, "cpu-int8-amx"), (True, False, "cpu-int8")])
def test_a_cpu_with_amx_takes_an_encoding_of_its_own(vnni: bool, amx: bool, name: str) -> None:
    assert encoding_for(resolve_target("cpu"), "int8", vnni=vnni, amx=amx).name == name


def test_kinds_agree_with_each_other() -> None:
    for encoding in encodings().values():
        assert set(encoding.int8_outputs) <= set(encoding.ops)
        if encoding.int8_outputs:
            assert set(encoding.shared_scale_ops) <= set(encoding.int8_outputs)


@pytest.mark.parametrize(
    ("target", "precision", "vnni", "name"),
    [
        ("cpu", "int8", True, "cpu-int8"),
        ("cpu", "int8", False, "cpu-int8-r7"),
        ("cpu", "float", True, "cpu-fp32"),
        ("rtx-4090", "int8", False, "trt-int8"),
        ("rtx-4090", "float", False, "trt-fp16"),
        ("rtx-2080-ti", "int8", False, "trt-fp16"),
    ],
)
def test_encoding_of_a_target(target: str, precision: str, vnni: bool, name: str) -> None:
    assert encoding_for(resolve_target(target), precision, vnni=vnni).name == name  # type: ignore[arg-type]


def test_a_target_without_int8_takes_floats() -> None:
    assert encoding_for(Target("old", "Old", "kit", ((5, 3),), int8=False), "int8", vnni=True).name == "trt-fp16"


def test_nobody_can_change_the_table() -> None:
    with pytest.raises(TypeError):
        encodings()["cpu-int8"] = encodings()["cpu-fp32"]  # type: ignore[index]
