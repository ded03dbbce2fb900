from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from assets import asset
from onnx_models import model, save, small, value
from trtcompress_graph.errors import ModelError
from trtcompress_graph.load import load_ir, read_model
from trtcompress_graph.shapes import infer, tensor_shapes


@pytest.mark.parametrize("shape", [(1, 3, 48, 160), (2, 3, 48, 200)])
def test_shapes_are_those_that_onnx_runtime_makes(shape: tuple[int, ...], tmp_path: Path) -> None:
    read = read_model(asset("rapidocr-onnxruntime", "rec_infer.onnx"))
    shapes = tensor_shapes(read, {"x": shape})
    graph = load_ir(read)
    nodes = [node for node in graph.graph if node.op_type in ("Conv", "MatMul", "Softmax", "Reshape", "Slice")]
    import onnx

    proto = onnx.load(read.path)
    del proto.graph.output[:]
    for node in nodes:
        proto.graph.output.append(helper.make_empty_tensor_value_info(str(node.outputs[0].name)))
    session = ort.InferenceSession(proto.SerializeToString())
    found = session.run(None, {"x": np.zeros(shape, np.float32)})
    assert len(nodes) > 50
    for node, array in zip(nodes, found, strict=True):
        assert shapes[str(node.outputs[0].name)] == array.shape
    assert all(name in shapes for node in graph.graph for name in [str(value.name) for value in node.outputs])


def test_constants_and_symbols(tmp_path: Path) -> None:
    read = read_model(save(small(), tmp_path / "m.onnx"))
    shapes = tensor_shapes(read, {"x": (5, 2, 4, 4)})
    assert shapes == {"x": (5, 2, 4, 4), "w": (3, 2, 3, 3), "b": (3,), "s": (2,)} | {
        "c": (5, 3, 4, 4),
        "r": (5, 3, 4, 4),
        "y": (5, 48),
    }
    graph = load_ir(read)
    infer(graph)
    assert [str(dim) for dim in graph.graph.node(0).outputs[0].shape or ()] == ["batch", "3", "4", "4"]


def test_shapes_that_depend_on_values_are_measured(tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("NonZero", ["x"], ["i"]), helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)],
        [value("x", ["n"])],
        [value("y", [1, "k"])],
        {},
    )
    shapes = tensor_shapes(read_model(save(proto, tmp_path / "m.onnx")), {"x": (4,)})
    assert shapes["y"] == (1, 0)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (1, 2, 4)])
def test_shapes_that_do_not_fit(shape: tuple[int, ...], tmp_path: Path) -> None:
    read = read_model(save(small(), tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match="does not fit") as caught:
        tensor_shapes(read, {"x": shape})
    assert "input 'x'" in caught.value.where


def test_a_model_that_cannot_run_at_that_size(tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("NonZero", ["x"], ["i"]), helper.make_node("Reshape", ["x", "s"], ["y"])],
        [value("x", ["n"])],
        [value("i", [1, "k"], TensorProto.INT64), value("y", ["m", 4])],
        {"s": np.array([-1, 4])},
    )
    read = read_model(save(proto, tmp_path / "m.onnx"))
    assert tensor_shapes(read, {"x": (8,)})["y"] == (2, 4)
    with pytest.raises(ModelError, match="does not run on inputs"):
        tensor_shapes(read, {"x": (7,)})
