"""Graphs in older opsets give the same numbers, and what has no older form is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from small_cnn import write_cnn
from trtcompress_graph.errors import ModelError
from trtcompress_graph.load import read_model
from trtcompress_graph.lowering import lower, quantizes_halves, widen

I64 = np.int64
CASES: dict[str, tuple[int, str, list[Any], dict[str, Any]]] = {
    "layer_norm": (20, "LayerNormalization", [np.linspace(0.5, 2, 10), np.linspace(-1, 1, 10)], {"epsilon": 1e-3}),
    "layer_norm_no_bias": (20, "LayerNormalization", [np.ones((8, 10))], {"axis": -2}),
    "group_norm": (21, "GroupNormalization", [np.linspace(0.5, 2, 6), np.linspace(-1, 1, 6)], {"num_groups": 3}),
    "rms_norm": (23, "RMSNormalization", [np.linspace(0.5, 2, 10)], {}),
    "gelu": (20, "Gelu", [], {}),
    "gelu_tanh": (20, "Gelu", [], {"approximate": "tanh"}),
    "hard_swish": (20, "HardSwish", [], {}),
    "mish": (20, "Mish", [], {}),
    "swish": (24, "Swish", [], {"alpha": 1.5}),
    "mean": (20, "ReduceMean", [np.array([1, -1], I64)], {"keepdims": 0}),
    "max_of_all": (20, "ReduceMax", [], {}),
    "min_of_nothing": (20, "ReduceMin", [np.array([], I64)], {"noop_with_empty_axes": 1}),
    "pad": (21, "Pad", [np.array([1, 2], I64), np.array(3.0), np.array([-1], I64)], {}),
    "shape": (20, "Shape", [], {"start": 1, "end": 3}),
    "average": (20, "AveragePool", [], {"kernel_shape": [2, 2], "dilations": [1, 1]}),
    "resize": (20, "Resize", ["", np.array([1, 1, 2, 2.0])], {"mode": "linear", "antialias": 0}),
    "reshape": (21, "Reshape", [np.array([0, -1], I64)], {"allowzero": 0}),
    "reshape_as_pytorch_writes_it": (21, "Reshape", [np.array([-1, 480], I64)], {"allowzero": 1}),
    "cast": (21, "Cast", [], {"to": TensorProto.INT32, "saturate": 1}),
    "softmax": (20, "Softmax", [], {"axis": 1}),
}


def write(path: Path, opset: int, nodes: list[onnx.NodeProto], constants: dict[str, Any], count: int = 1) -> Path:
    """A graph from `x` (batch, 6, 8, 10) to y, y1, ..."""
    kinds = {"Shape": TensorProto.INT64, "Cast": TensorProto.INT32}
    kind = kinds.get(nodes[-1].op_type, TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6, 8, 10])],
        [helper.make_tensor_value_info("y" if not i else f"y{i}", kind, None) for i in range(count)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in inferred.graph.output:
        if not value.type.tensor_type.HasField("shape"):  # of functions ONNX infers no shapes
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, ["batch", 6, 8, 10]))
    onnx.save(inferred, path)
    return path


def run(path: Path) -> list[np.ndarray]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(2, 6, 8, 10)).astype(np.float32)
    found: list[np.ndarray] = session.run(None, {"x": x})
    return found


def opset(path: Path) -> tuple[int, int]:
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    return proto.opset_import[0].version, proto.ir_version


@pytest.mark.parametrize("wanted", [13, 17])
@pytest.mark.parametrize("case", CASES)
def test_older_operators_give_the_same_numbers(tmp_path: Path, case: str, wanted: int):
    version, op_type, given, attributes = CASES[case]
    named = [f"c{i}" if isinstance(value, np.ndarray) else value for i, value in enumerate(given)]
    constants = {
        name: value if value.dtype == I64 else value.astype(np.float32)
        for name, value in zip(named, given, strict=True)
        if name
    }
    node = helper.make_node(op_type, ["x", *named], ["y"], name="n", **attributes)
    path = write(tmp_path / "new.onnx", version, [node], constants)
    lowered = lower(read_model(path), wanted, tmp_path / "old.onnx")
    assert opset(lowered.path) == (wanted, {13: 7, 17: 8}[wanted])
    for one, other in zip(run(path), run(lowered.path), strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-5, atol=2e-6)
    nodes = onnx.load(lowered.path).graph.node
    assert nodes[-1].output[0] == "y"
    if wanted == 17 and op_type == "LayerNormalization":
        assert [one.op_type for one in nodes] == [op_type]
        again = lower(read_model(path), 17, tmp_path / "none.onnx", without=["LayerNormalization"])
        assert op_type not in {one.op_type for one in onnx.load(again.path).graph.node}


@pytest.mark.parametrize(("axis", "count"), [(1, 3), (1, 4), (3, 3)])
def test_splits_into_a_number_of_parts(tmp_path: Path, axis: int, count: int):
    names = ["y" if not i else f"y{i}" for i in range(count)]
    node = helper.make_node("Split", ["x"], names, name="n", axis=axis, num_outputs=count)
    path = write(tmp_path / "new.onnx", 20, [node], {}, count)
    lowered = lower(read_model(path), 13, tmp_path / "old.onnx")
    for one, other in zip(run(path), run(lowered.path), strict=True):
        np.testing.assert_array_equal(other, one)


def test_a_graph_inside_a_branch_is_lowered_too(tmp_path: Path):
    def branch(name: str, op_type: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op_type, ["x"], [name], name=name)], name, [], [out])

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0, name="m"),
        helper.make_node("Greater", ["m", "limit"], ["c"], name="c"),
        helper.make_node(
            "If", ["c"], ["y"], name="if", then_branch=branch("a", "Gelu"), else_branch=branch("b", "Mish")
        ),
    ]
    path = write(tmp_path / "new.onnx", 20, nodes, {"limit": np.float32(0)})
    lowered = lower(read_model(path), 13, tmp_path / "old.onnx")
    assert opset(lowered.path)[0] == 13
    np.testing.assert_allclose(run(lowered.path)[0], run(path)[0], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("version", "node", "why"),
    [
        (20, ("Trilu", ["x"], {}), "Trilu cannot be written in opset 13: it came with opset 14"),
        (20, ("Resize", ["x", "", "s"], {"antialias": 1, "mode": "linear"}), "the attribute antialias is newer"),
        (20, ("Pad", ["x", "p"], {"mode": "wrap"}), "mode wrap came with opset 19"),
    ],
)
def test_what_has_no_older_form_is_named(tmp_path: Path, version: int, node: tuple[str, list[str], Any], why: str):
    op_type, inputs, attributes = node
    constants = {"s": np.array([1, 1, 0.5, 0.5], np.float32), "p": np.array([0, 0, 0, 1, 0, 0, 0, 1], I64)}
    made = helper.make_node(op_type, inputs, ["y"], name="odd", **attributes)
    held = {name: value for name, value in constants.items() if name in inputs}
    path = write(tmp_path / "new.onnx", version, [made], held)
    with pytest.raises(ModelError, match=why) as caught:
        lower(read_model(path), 13, tmp_path / "old.onnx")
    assert caught.value.where.endswith("node 'odd'")
    assert not (tmp_path / "old.onnx").exists()


def test_pairs_of_float16_scales_are_widened(tmp_path: Path):
    model = read_model(write_cnn(tmp_path / "q.onnx", int8=True, fp16=True))
    proto = onnx.load(model.path)
    assert quantizes_halves(model) is any(
        i.data_type == TensorProto.FLOAT16 for i in proto.graph.initializer if "scale" in i.name
    )
    wide = widen(model, tmp_path / "wide.onnx")
    found = onnx.load(wide.path)
    assert not any(i.data_type == TensorProto.FLOAT16 for i in found.graph.initializer)
    assert not quantizes_halves(wide)
    before = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    for held in found.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(held).astype(np.float64), before[held.name])
    lowered = lower(wide, 13, tmp_path / "old.onnx")
    assert opset(lowered.path)[0] == 13
    x = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    fed = ((model, x.astype(np.float16)), (lowered, x))
    one, other = (ort.InferenceSession(str(m.path)).run(None, {"x": feed})[0] for m, feed in fed)
    np.testing.assert_allclose(other, one, rtol=0.02, atol=0.02 * np.abs(one).max())
