"""Which weights are 2:4 sparse, and that TensorRT is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from small_cnn import write_cnn
from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_engines.sparsity import sparse_weights
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.load import read_model

OPTIONS = CompileOptions(profiles={"x": ((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))})


def zeroed(path: Path, axis: int, keep: int) -> Path:
    """The graph with all but `keep` of every four weights along an axis zero, where it is a multiple of 4."""
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.ndim < 2 or weight.shape[axis] % 4:
            continue
        fours = np.moveaxis(weight, axis, -1).reshape(-1, 4).copy()
        fours[:, keep:] = 0
        back = np.moveaxis(fours.reshape(np.moveaxis(weight, axis, -1).shape), -1, axis)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(back), tensor.name))
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize(("axis", "keep", "sparse"), [(1, 2, True), (0, 2, True), (1, 3, False), (1, 1, True)])
def test_two_of_four_along_one_axis(tmp_path: Path, axis: int, keep: int, sparse: bool):
    assert sparse_weights(write_cnn(tmp_path / "m.onnx")) == ()
    found = sparse_weights(zeroed(tmp_path / "m.onnx", axis, keep))
    assert bool(found) is sparse
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert all(2 * np.count_nonzero(held[name]) <= held[name].size for name in found)


def test_tensorrt_is_told(tmp_path: Path):
    dense = read_model(write_cnn(tmp_path / "dense.onnx", fp16=True))
    sparse = read_model(zeroed(write_cnn(tmp_path / "sparse.onnx", fp16=True), 1, 2))
    a100, card = resolve_target("a100"), resolve_target("rtx-3090")
    told = [backend_for(a100).compile(graph, a100, "trt-fp16", OPTIONS, tmp_path / "a") for graph in (dense, sparse)]
    assert "--sparsity" not in told[0].details["how_to_build"]
    assert "--sparsity=enable" in told[1].details["how_to_build"]
    built = [backend_for(card).compile(graph, card, "trt-fp16", OPTIONS, tmp_path / "e") for graph in (dense, sparse)]
    assert "sparse_weights" not in built[0].details
    assert built[1].details["sparse_weights"].endswith("are 2:4; sparse kernels may be taken")
