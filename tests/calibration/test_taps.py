"""Calibration reads every tensor that placement asks for, under whatever encoding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from float_graphs import IMAGE, Net, images, measured
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.taps import QUANTIZABLE
from trtcompress_engines.encodings import encodings
from trtcompress_graph.encoding import Encoding

CALIBRATED = [encoding for encoding in encodings().values() if encoding.activation is not None]
NEED_RANGES = sorted({kind for e in CALIBRATED for kind in e.ops if kind not in e.shared_scale_ops})
"""What only moves numbers takes the range of what it reads."""


def another(net: Net, kind: str, x: str, name: str) -> str:
    """One more such node, on 8 channels that stay 8 channels (1 x 1 behind a pooling over all places)."""
    if kind in ("Add", "Mul"):
        return net.node(kind, [x, "shift"], name)
    if kind == "Concat":
        half = net.node("Slice", [x, *(net.constant(f"{name}.{v}", [v], np.int64) for v in (0, 4, 1))], f"{name}_half")
        return net.node(kind, [half, half], name, axis=1)
    if kind == "Where":
        return net.node(kind, [net.constant(f"{name}.mask", True, np.bool_), x, "shift"], name)
    if kind in ("Conv", "ConvTranspose"):
        weight = net.constant(f"{name}.weight", net.rng.normal(size=(8, 8, 1, 1)))
        return net.node(kind, [x, weight], name)
    if kind == "MatMul":
        return net.product(kind, x, name, 16, 16)
    if kind == "AveragePool":
        return net.node(kind, [x], name, kernel_shape=[3, 3], pads=[1] * 4)
    if kind == "ReduceMean":
        return net.node(kind, [x, net.constant(f"{name}.axes", [2, 3], np.int64)], name)
    return net.node(kind, [x], name)


def chain(path: Path, kind: str, between: str) -> Net:
    """Two such nodes between two convolutions, each with an activation behind it."""
    net = Net()
    x = net.conv("x", "first", 3, 8)
    net.conv("x", "shift", 3, 8)
    for place in "ab":
        x = another(net, kind, x, place)
        x = net.node(between, [x], f"{place}_{between}") if between else x
    net.conv(x, "last", 8, 8)
    return net


@pytest.mark.parametrize("between", ["", "Relu", "LeakyRelu"])
@pytest.mark.parametrize("kind", [kind for kind in NEED_RANGES if kind != "Gemm"])
def test_no_node_stays_in_float_for_want_of_a_range(tmp_path: Path, kind: str, between: str) -> None:
    net = chain(tmp_path, kind, between)
    model = net.save(tmp_path / "net.onnx", IMAGE, {"last": ("batch", 8, "h", "w")})
    ranges = measured(model, images(2))
    for encoding in CALIBRATED:
        every = replace(encoding, slower=(), product_weights=0, group_channels=0)
        plan = plan_precision(model, ranges, every)
        assert not [node for node in plan.nodes if "no range" in node.reason], encoding.name


@pytest.mark.parametrize("opset", [10, 20])
@pytest.mark.parametrize(("low", "high", "read"), [(0.0, 6.0, False), (-1.0, 0.0, False), (0.5, 2.0, True)])
def test_what_a_clip_reads_has_a_range_where_it_is_not_absorbed(
    tmp_path: Path, opset: int, low: float, high: float, read: bool
) -> None:
    net = Net(opset)
    x = net.conv("x", "a", 3, 8)
    bounds = [net.constant("low", low), net.constant("high", high)] if opset > 10 else []
    x = net.node("Clip", [x, *bounds], "clipped", **({} if bounds else {"min": low, "max": high}))
    model = net.save(tmp_path / "net.onnx", IMAGE, {net.conv(x, "b", 8, 4): ("batch", 4, 16, 16)})
    ranges = measured(model, images(2))
    assert ("a" in ranges.tensors) is read
    plan = plan_precision(model, ranges, encodings()["cpu-int8"])
    assert [node.precision for node in plan.nodes if node.op == "Conv"] == ["int8", "int8"]


@pytest.mark.parametrize("encoding", CALIBRATED, ids=lambda e: e.name)
def test_the_kinds_that_calibration_knows_are_those_of_the_encodings(encoding: Encoding) -> None:
    assert set(encoding.ops) - set(encoding.shared_scale_ops) <= QUANTIZABLE
