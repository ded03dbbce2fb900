"""The table of encodings and which of them a target takes."""

from __future__ import annotations

import pytest

from trtcompress_engines.encodings import encoding_for, encodings, precisions_of
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import UsageError
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
        "trt-bf16": ("bfloat16", None, True, 8),
        "trt-fp8": ("float16", "f8", True, 8),
        "cpu-weight-int8": ("float32", None, False, 8),
        "cpu-weight-int4": ("float32", None, False, 4),
        "trt-weight-int8": ("bfloat16", None, True, 8),
        "trt-weight-int4": ("bfloat16", None, True, 4),
        "cpu-tables": ("float32", None, False, 8),
        "trt-tables": ("bfloat16", None, True, 8),
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


@pytest.mark.parametrize(
    ("target", "precision", "name"),
    [
        ("cpu", "weight-int8", "cpu-weight-int8"),
        ("cpu", "w8", "cpu-weight-int8"),
        ("cpu", "int4", "cpu-weight-int4"),
        ("cpu", "tables", "cpu-tables"),
        ("rtx-4090", "fp8", "trt-fp8"),
        ("h100", "fp8", "trt-fp8"),
        ("rtx-3090", "bf16", "trt-bf16"),
        ("rtx-3090+rtx-4090", "w4", "trt-weight-int4"),
        ("jetson-thor", "fp8", "trt-fp8"),
    ],
)
def test_formats_of_a_target(target: str, precision: str, name: str) -> None:
    assert encoding_for(resolve_target(target), precision, vnni=True).name == name


@pytest.mark.parametrize(
    ("target", "precision", "why"),
    [
        ("rtx-3090", "fp8", "SM86 has no FP8: that came with SM89"),
        ("rtx-3090+rtx-4090", "fp8", "SM86 has no FP8"),
        ("jetson-agx-orin", "fp8", "SM87 has no FP8"),
        ("rtx-2080-ti", "bf16", "SM75 has no BF16: that came with SM80"),
        ("t4", "weight-int4", "SM75 has no INT4"),
        ("jetson-agx-xavier", "weight-int8", "SM72 has no BF16"),
        ("cpu", "fp8", "ONNX Runtime has no FP8 kernels on a CPU"),
        ("cpu", "bf16", "ONNX Runtime has no BF16 kernels on a CPU"),
        ("cpu", "int3", "there is no precision 'int3'"),
    ],
)
def test_a_format_that_a_target_does_not_take_is_refused(target: str, precision: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        encoding_for(resolve_target(target), precision, vnni=True)
    assert why in caught.value.what
    assert (caught.value.where, caught.value.exit_code) == (f"target '{target}:{precision}'", 2)
    assert f"{target}:float" in caught.value.hint


def test_what_may_stand_behind_the_colon() -> None:
    assert precisions_of(resolve_target("cpu")) == ("int8", "float", "weight-int8", "weight-int4", "tables")
    assert precisions_of(resolve_target("rtx-2080-ti")) == ("float",)
    assert precisions_of(resolve_target("rtx-3090")) == (
        "int8",
        "float",
        "bf16",
        "weight-int8",
        "weight-int4",
        "tables",
    )


def test_a_target_without_int8_takes_floats() -> None:
    assert encoding_for(Target("old", "Old", "kit", ((5, 3),), int8=False), "int8", vnni=True).name == "trt-fp16"


def test_nobody_can_change_the_table() -> None:
    with pytest.raises(TypeError):
        encodings()["cpu-int8"] = encodings()["cpu-fp32"]  # type: ignore[index]
