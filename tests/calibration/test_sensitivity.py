"""What each INT8 node and tensor costs at the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from float_graphs import IMAGE, Net, images, measured, residual_net
from trtcompress_calibration.layout import lay_out
from trtcompress_calibration.opening import open_graph
from trtcompress_calibration.placement import int8_nodes
from trtcompress_calibration.precision import needed_opset, plan_precision
from trtcompress_calibration.qdq import QdqWriter
from trtcompress_calibration.samples import Sample
from trtcompress_calibration.sensitivity import sensitivity
from trtcompress_calibration.spots import node_spots
from trtcompress_engines.encodings import encodings
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.load import save_ir
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

CPU, TRT = encodings()["cpu-int8"], encodings()["trt-int8"]


def branches(path: Path) -> Model:
    """Nodes that read what was made long before, one tensor that is read as INT8 and as a float, and two outputs."""
    net = Net()
    x = net.node("LeakyRelu", [net.conv("x", "stem", 3, 8)], "stem_leaky")
    late = net.conv(x, "late", 8, 8)
    wave = net.node("Sin", [net.conv(x, "other", 8, 8)], "wave")
    late = net.node("Relu", [late], "late_relu")
    both = net.node("Add", [late, wave], "both")
    net.node("Softmax", [x], "seen", axis=1)
    pooled = net.node("Flatten", [net.node("GlobalAveragePool", [both], "mean")], "flat")
    net.product("MatMul", pooled, "logits", 8, 5)
    return net.save(path, IMAGE, {"seen": ("batch", 8, 16, 16), "logits": ("batch", 5)})


def answers(path: Path, samples: Sequence[Sample]) -> list[np.ndarray]:
    """All outputs of one batch, each node computed by itself."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {"x": np.concatenate([sample.inputs["x"] for sample in samples])})
    return found


def damage(full: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    shares = []
    for a, b in zip(full, other, strict=True):
        one, two = a.astype(np.float64), b.astype(np.float64)
        shares.append(np.square(one - two).sum() / np.square(one - one.mean()).sum())
    return float(np.mean(shares))


def left_out(model: Model, ranges: Ranges, encoding: Encoding, node: str, out: Path) -> Path:
    """The graph in which this node alone is INT8, with the scales of the whole quantized graph."""
    plan = plan_precision(model, ranges, encoding)
    loaded = open_graph(model, needed_opset(encoding))
    int8 = int8_nodes(loaded.graph, plan, encoding)
    pairs = lay_out(loaded.graph, int8, encoding, ranges.tensors)
    (spot,) = (spot for spot in node_spots(loaded.graph, int8, pairs, encoding) if spot.node.name == node)
    mine = []
    for pair in spot.pairs:
        if pair.value.name in spot.writes:
            mine.append(pair)
        else:
            mine.append(replace(pair, readers=tuple(r for r in pair.readers if r[0] is spot.node), whole=False))
    QdqWriter(loaded.graph, encoding).write(mine, {spot.node})
    return save_ir(loaded, out).path


@pytest.mark.parametrize("encoding", [CPU, TRT], ids=lambda e: e.name)
@pytest.mark.parametrize("net", [residual_net, branches])
def test_the_same_as_quantizing_one_node_and_running_it_all(
    net: Callable[[Path], Model], encoding: Encoding, tmp_path: Path
) -> None:
    model, samples = net(tmp_path / "net.onnx"), images(6)
    ranges = measured(model, samples)
    plan = plan_precision(model, ranges, encoding)
    found = sensitivity(model, ranges, plan, encoding, samples, samples=6, threads=1, optimize=False)
    full = answers(model.path, samples)
    assert {each.name for each in found.nodes} == {
        p.node for p in plan.nodes if p.precision == "int8" and p.op in encoding.ops
    }
    for each in found.nodes:
        path = left_out(model, ranges, encoding, each.name, tmp_path / "one.onnx")
        assert each.damage == pytest.approx(damage(full, answers(path, samples)), rel=1e-12, abs=0), each.name
    assert [each.damage for each in found.nodes] == sorted((each.damage for each in found.nodes), reverse=True)
