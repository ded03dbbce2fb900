"""What an older model computes is what it computes in the opset of today."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_models import difference, model, run, save, value
from trtcompress_calibration.opening import open_graph
from trtcompress_graph.load import read_model, save_ir
from trtcompress_graph.simplify import simplify


def old(kind: str) -> onnx.ModelProto:
    if kind == "Hardmax":
        return model(
            [helper.make_node(kind, ["x"], ["y"])], [value("x", [1, 2, 6, 6])], [value("y", [1, 2, 6, 6])], {}, 9
        )
    mode, opset = kind.split("/")
    node = helper.make_node("Resize" if opset == "10" else "Upsample", ["x", "s"], ["y"], mode=mode)
    scales = {"s": np.array([1, 1, 2, 3], np.float32)}
    return model([node], [value("x", [1, 2, 6, 6])], [value("y", [1, 2, 12, 18])], scales, int(opset))


@pytest.mark.parametrize("kind", ["linear/9", "linear/10", "nearest/10", "Hardmax"])
@pytest.mark.parametrize("way", ["simplify", "calibrate"])
def test_old_operators_keep_their_meaning(kind: str, way: str, tmp_path: Path) -> None:
    path, out = save(old(kind), tmp_path / "m.onnx"), tmp_path / "out.onnx"
    if way == "simplify":
        simplify(read_model(path), out)
    else:
        save_ir(open_graph(read_model(path), 20), out)
    assert onnx.load(out).opset_import[0].version == 20
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 6, 6)).astype(np.float32)}
    assert difference(run(path, feeds)[0], run(out, feeds)[0]) <= 1e-5
