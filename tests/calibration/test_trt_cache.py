"""TensorRT's calibration cache, written and read."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from float_graphs import IMAGE, Net, cosine, images, measured, residual_net, run
from trtcompress_calibration.doubts import untold
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.scales import activation_scale
from trtcompress_calibration.trt_cache import cache_text, read_cache, version_number
from trtcompress_engines.encodings import encodings
from trtcompress_graph.errors import DataError, MissingPathError, UsageError
from trtcompress_graph.ranges import TensorRange

TRT = encodings()["trt-int8"]


@pytest.mark.parametrize(
    ("version", "number"), [("8.0.1", 8001), ("8.5.2", 8502), ("8.6", 8600), ("8.6.1.6", 8601), ("10.3.0", 100300)]
)
def test_versions_are_numbered_as_tensorrt_does(version: str, number: int) -> None:
    assert version_number(version) == number


@pytest.mark.parametrize("version", ["11.0", "7.1.3", "", "8", "8.6.1-rc"])
def test_versions_without_calibrators_are_refused(version: str) -> None:
    with pytest.raises(UsageError, match="calibration cache"):
        version_number(version)


def scales(text: str) -> dict[str, bytes]:
    lines = [line.rsplit(": ", 1) for line in text.splitlines()[1:]]
    return {name: bytes.fromhex(bits) for name, bits in lines}


def test_scales_are_those_of_the_graph_to_the_last_bit(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    ranges = measured(model, images(16), "entropy")
    plan = plan_precision(model, ranges, TRT)
    text = cache_text(model, ranges, plan, TRT, "8.5.2")
    assert text.splitlines()[0] == "TRT-8502-EntropyCalibration2"
    found = scales(text)
    graph = onnx.load(quantize(model, ranges, plan, TRT, tmp_path / "q.onnx").path).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = {node.input[0]: held[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"}
    compared = {name: scale for name, scale in pairs.items() if name in found}
    assert len(compared) > 4
    for name, scale in compared.items():
        assert np.float32(scale) == np.frombuffer(found[name], ">f4")[0], name
    assert found.keys() == {name for name, held_range in ranges.tensors.items() if held_range.threshold is not None}


def test_what_was_written_is_read_and_quantizes_alike(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    ranges = measured(model, images(16), "entropy")
    plan = plan_precision(model, ranges, TRT)
    (tmp_path / "calibration.cache").write_text(cache_text(model, ranges, plan, TRT, "10.3.0"))
    read = read_cache(tmp_path / "calibration.cache", model)
    again = plan_precision(model, read, TRT)
    one = quantize(model, ranges, plan, TRT, tmp_path / "one.onnx")
    two = quantize(model, read, again, TRT, tmp_path / "two.onnx")
    assert onnx.load(one.path).graph.initializer == onnx.load(two.path).graph.initializer


@given(st.floats(2.0**-60, 2.0**60, width=32))
def test_a_scale_survives_reading(scale: float) -> None:
    amax = scale * 127
    read = TensorRange(-amax, amax, amax, 0.0)
    float32 = replace(TRT, float_type="float32")
    assert activation_scale(read, float32).scale == np.float32(scale)


def test_caches_of_other_writers_are_read(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    path = tmp_path / "calibration.cache"
    path.write_text("TRT-7134-EntropyCalibration2\nstem_relu: 3c010a14\nx: 3d\nof another: 3c010a14\n\n")
    ranges = read_cache(path, model)
    assert ranges.tensors.keys() == {"stem_relu", "x"}
    threshold = ranges.tensors["stem_relu"].threshold
    assert threshold is not None
    assert struct.pack(">f", threshold / 127).hex() == "3c010a14"


def test_names_may_hold_what_python_takes_for_a_line_break(tmp_path: Path) -> None:
    net = Net()
    names = [net.conv("x", "a\x85b", 3, 3)]
    names += [net.conv(names[-1], " b\u2028", 3, 3), "\x0by"]
    net.conv(names[1], names[2], 3, 3)
    model = net.save(tmp_path / "m.onnx", IMAGE, {names[2]: IMAGE["x"]})
    ranges = measured(model, images(4))
    path = tmp_path / "calibration.cache"
    path.write_text(cache_text(model, ranges, plan_precision(model, ranges, TRT), TRT, "8.6.1"), encoding="utf-8")
    assert read_cache(path, model).tensors.keys() == {"x", *names}
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_cache(path, model).tensors.keys() == {"x", *names}


def test_what_a_cache_does_not_tell_stays_float32(tmp_path: Path) -> None:
    """A tensor that reaches 500000 is not in the cache, and would be infinite in FP16."""
    net = Net()
    a = net.product("MatMul", "x", "a", 256, 256)
    big = net.constant("big", 1e5)
    b = net.node("Mul", [a, big], "b")
    d = net.node("Sub", [b, net.node("ReduceMean", [b], "c")], "d")
    net.product("MatMul", net.node("Div", [d, big], "e"), "y", 256, 256)
    model = net.save(tmp_path / "m.onnx", {"x": ("n", 256)}, {"y": ("n", 256)})
    bits = {name: struct.pack(">f", reach / 127).hex() for name, reach in {"x": 4, "a": 5, "e": 5, "y": 5}.items()}
    path = tmp_path / "calibration.cache"
    path.write_text("\n".join(["TRT-8601-EntropyCalibration2", *(f"{name}: {held}" for name, held in bits.items())]))
    read = read_cache(path, model)
    plan = plan_precision(model, read, TRT)
    precisions = {node.node: node.precision for node in plan.nodes}
    assert precisions == {
        "MatMul:a": "int8",
        "Mul:b": "float32",
        "ReduceMean:c": "float32",
        "Sub:d": "float32",
        "Div:e": "float32",
        "MatMul:y": "int8",
    }
    samples = images(4, (256,))
    quantized = quantize(model, read, plan, TRT, tmp_path / "q.onnx")
    assert cosine(run(quantized.path, samples, kernels=False), run(model.path, samples)) > 0.999
    assert "does not tell" in untold(read, TRT)[0]
    assert untold(read, replace(TRT, float_type="float32")) == ()
    assert untold(measured(model, samples), TRT) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a calibration cache"),
        ('{"version": 1}', "not a calibration cache"),
        ("TRT-8601-EntropyCalibration2\nstem_relu\n", "line 2"),
        ("TRT-8601-EntropyCalibration2\nstem_relu: 3c010a141\n", "line 2"),
        ("TRT-8601-EntropyCalibration2\nstem_relu: 7f800000\n", "inf"),
        ("TRT-8601-EntropyCalibration2\nstem_relu: 7fc00000\n", "nan"),
        ("TRT-8601-EntropyCalibration2\nstem_relu: 00000000\n", "0.0"),
        ("TRT-8601-EntropyCalibration2\nother: 3c010a14\n", "none of its 1 tensors"),
    ],
)
def test_what_is_no_cache_of_the_model_is_refused(tmp_path: Path, text: str, said: str) -> None:
    model = residual_net(tmp_path / "net.onnx")
    path = tmp_path / "calibration.cache"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_cache(path, model)
    assert said in str(caught.value)
    assert caught.value.hint
    path.unlink()
    with pytest.raises(MissingPathError):
        read_cache(path, model)


def test_the_encoding_of_the_cpu_has_no_cache(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    ranges = measured(model, images(4))
    cpu = encodings()["cpu-int8"]
    with pytest.raises(UsageError, match="not symmetric"):
        cache_text(model, ranges, plan_precision(model, ranges, cpu), cpu, "8.6.1")
