from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

from assets import asset
from onnx_models import light, model, save, value
from trtcompress_graph.cost import model_cost
from trtcompress_graph.load import read_model
from trtcompress_graph.simplify import simplify


def test_resnet50_costs_what_is_known(tmp_path: Path) -> None:
    read = read_model(save(light("resnet50"), tmp_path / "m.onnx"))
    cost = model_cost(read, {"gpu_0/data_0": (1, 3, 224, 224)})
    assert cost.macs == pytest.approx(4.09e9, rel=0.005)
    assert cost.parameters == pytest.approx(25.6e6, rel=0.005)
    assert cost.bytes == 4 * cost.parameters
    assert cost.per_op["Conv"].count == 53
    assert next(iter(cost.per_op)) == "Conv"
    assert sum(op.macs for op in cost.per_op.values()) == cost.macs
    assert sum(op.parameters for op in cost.per_op.values()) == cost.parameters
    assert cost.nodes[0].macs == max(node.macs for node in cost.nodes)


def test_the_same_before_and_after_simplifying_but_for_folded_norms(tmp_path: Path) -> None:
    read = read_model(asset("rapidocr-onnxruntime", "rec_infer.onnx"))
    plain = simplify(read, tmp_path / "out.onnx")
    before, after = (model_cost(m, {"x": (2, 3, 48, 160)}) for m in (read, plain))
    assert before.macs == after.macs
    # The network's own count is 2.7 M; what batch norms hold beside their convolutions is less than 1 % of it.
    assert after.parameters == pytest.approx(before.parameters, rel=0.01)


def test_batches_cost_in_proportion() -> None:
    read = read_model(asset("rapidocr-onnxruntime", "cls_infer.onnx"))
    one, four = (model_cost(read, {"x": (batch, 3, 48, 192)}) for batch in (1, 4))
    assert four.macs == 4 * one.macs
    assert four.parameters == one.parameters


RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_cells(kind: str, tmp_path: Path) -> None:
    steps, batch, inputs, hidden, gates = 5, 3, 7, 11, RECURRENT[kind]
    node = helper.make_node(kind, ["x", "w", "r"], ["y"], name="cell", hidden_size=hidden)
    proto = model(
        [node],
        [value("x", [steps, batch, inputs])],
        [value("y", [steps, 1, batch, hidden])],
        {
            "w": np.zeros((1, gates * hidden, inputs), np.float32),
            "r": np.zeros((1, gates * hidden, hidden), np.float32),
        },
    )
    cost = model_cost(read_model(save(proto, tmp_path / "m.onnx")), {})
    assert cost.macs == steps * batch * gates * hidden * (inputs + hidden)
    assert cost.parameters == gates * hidden * (inputs + hidden)


def products() -> list[tuple[NodeProto, list[list[int]], list[int], int]]:
    """Node, shapes of its inputs, shape of its output, and its multiply-accumulates."""
    return [
        (helper.make_node("MatMul", ["a", "b"], ["y"]), [[2, 3, 4], [4, 5]], [2, 3, 5], 2 * 3 * 4 * 5),
        (helper.make_node("MatMul", ["a", "b"], ["y"]), [[2, 3, 4], [2, 4, 5]], [2, 3, 5], 2 * 3 * 4 * 5),
        (helper.make_node("Gemm", ["a", "b"], ["y"], transA=1, transB=1), [[4, 3], [5, 4]], [3, 5], 3 * 4 * 5),
        (helper.make_node("Einsum", ["a", "b"], ["y"], equation="bhqd,bhkd->bhqk"),
         [[2, 3, 4, 5], [2, 3, 6, 5]], [2, 3, 4, 6], 2 * 3 * 4 * 5 * 6),
        (helper.make_node("Einsum", ["a", "b"], ["y"], equation="...ij,...jk->...ik"),
         [[2, 3, 4], [2, 4, 5]], [2, 3, 5], 2 * 3 * 4 * 5),
        (helper.make_node("Conv", ["a", "b"], ["y"], group=2), [[1, 4, 6, 6], [8, 2, 3, 3]], [1, 8, 4, 4], 128 * 2 * 9),
        (helper.make_node("ConvTranspose", ["a", "b"], ["y"], group=2),
         [[1, 4, 6, 6], [4, 3, 2, 2]], [1, 6, 7, 7], 144 * 3 * 4),
    ]  # fmt: skip


@pytest.mark.parametrize(("node", "shapes", "out", "macs"), products())
def test_products(node: NodeProto, shapes: list[list[int]], out: list[int], macs: int, tmp_path: Path) -> None:
    inputs = [value(name, shape) for name, shape in zip("ab", shapes, strict=True)]
    read = read_model(save(model([node], inputs, [value("y", out)], {}), tmp_path / "m.onnx"))
    cost = model_cost(read, {})
    assert cost.macs == macs
    assert cost.nodes[0].name == "y"


def test_attention(tmp_path: Path) -> None:
    batch, heads, queries, keys, width = 2, 4, 5, 7, 8
    node = helper.make_node(
        "Attention", ["q", "k", "v"], ["y"], name="attention", q_num_heads=heads, kv_num_heads=heads
    )
    inputs = [value(name, [batch, n, heads * width]) for name, n in (("q", queries), ("k", keys), ("v", keys))]
    proto = model([node], inputs, [value("y", [batch, queries, heads * width])], {}, opset=23)
    proto.ir_version = 11
    cost = model_cost(read_model(save(proto, tmp_path / "m.onnx")), {})
    assert cost.macs == batch * heads * queries * keys * 2 * width


def test_weights_behind_a_dequantize_count_where_they_are_used_and_once(tmp_path: Path) -> None:
    proto = model(
        [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"], name="dq"),
            helper.make_node("MatMul", ["x", "wf"], ["h"], name="first"),
            helper.make_node("MatMul", ["h", "wf"], ["y"], name="second"),
        ],
        [value("x", ["n", 8])],
        [value("y", ["n", 8])],
        {"w": np.zeros((8, 8), np.int8), "s": np.float32(0.1), "z": np.int8(0)},
    )
    cost = model_cost(read_model(save(proto, tmp_path / "m.onnx")), {"x": (3, 8)})
    assert cost.macs == 2 * 3 * 8 * 8
    assert [(node.name, node.parameters) for node in cost.nodes] == [("first", 66), ("second", 0)]
    assert cost.bytes == 64 + 4 + 1


def test_of_two_branches_the_dearer_counts(tmp_path: Path) -> None:
    def branch(width: int) -> object:
        inner = [
            helper.make_node("MatMul", ["x", f"w{width}"], [f"h{width}"], name=f"m{width}"),
            helper.make_node("ReduceSum", [f"h{width}"], [f"r{width}"], keepdims=0),
        ]
        return helper.make_graph(inner, "g", [], [value(f"r{width}", [])])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch(8), else_branch=branch(16))
    weights = {f"w{n}": np.zeros((4, n), np.float32) for n in (8, 16)}
    inputs = [value("x", [2, 4]), value("c", [], TensorProto.BOOL)]
    read = read_model(save(model([node], inputs, [value("y", [])], weights), tmp_path / "m.onnx"))
    assert model_cost(read, {}).macs == 2 * 4 * 16
