"""A graph in float16 from its inputs to its outputs is trained in float32, and gets its types back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from command_line import trtcompress
from digit_nets import images, write_cut, write_teacher
from trtcompress.recovery.halves import has_halves, in_float32, in_halves
from trtcompress_graph.errors import ModelError
from trtcompress_graph.load import read_model

MOVED = "classifier.2.weight"
"""Stands in a `Constant` node."""


def halved(source: Path, path: Path) -> Path:
    """The model with float16 for all floats, and one weight in a `Constant` node."""
    model = onnx.load(source)
    graph = model.graph
    held = {
        w.name: numpy_helper.from_array(numpy_helper.to_array(w).astype(np.float16), w.name) for w in graph.initializer
    }
    constant = helper.make_node("Constant", [], [MOVED], name="constant", value=held.pop(MOVED))
    nodes = [constant, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(held.values())
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path)
    return path


def weights(path: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(path).graph
    found = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    (constant,) = (node for node in graph.node if node.op_type == "Constant")
    return {**found, MOVED: numpy_helper.to_array(constant.attribute[0].t)}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """teacher.onnx and student.onnx, both float16, and samples of float16."""
    folder = tmp_path_factory.mktemp("halves")
    full = write_teacher(folder / "full.onnx")
    halved(full, folder / "teacher.onnx")
    halved(write_cut(full, folder / "cut.onnx"), folder / "student.onnx")
    np.savez(folder / "images.npz", x=images()[0][:128].astype(np.float16))
    return folder


@pytest.mark.parametrize("blockwise", ["--blockwise", "--no-blockwise"])
def test_a_model_that_takes_float16_is_trained_and_written_back_as_float16(place, blockwise):
    out = place / "out.onnx"
    ran = trtcompress(
        *("recover", place / "student.onnx", "--teacher", place / "teacher.onnx", "--data", place / "images.npz"),
        *("-o", out, blockwise, "--epochs", "8", "--lr", "1e-2", "--json"),
    )
    assert ran.code == 0, ran.err
    assert ran.json["loss_after"] < 0.7 * ran.json["loss_before"]
    before, after = weights(place / "student.onnx"), weights(out)
    assert {name: value.dtype for name, value in after.items()} == dict.fromkeys(before, np.float16)
    unchanged = [name for name in before if before[name].tobytes() == after[name].tobytes()]
    assert not unchanged, "what a Constant holds was trained too"
    assert onnx.load(out).graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16


def test_halves_are_found_wherever_they_are(place, tmp_path):
    half, full = read_model(place / "student.onnx"), read_model(place / "cut.onnx")
    assert has_halves(half)
    assert in_float32(full, tmp_path / "none.onnx") is full
    wide = in_float32(half, tmp_path / "deep" / "wide.onnx")
    assert not has_halves(wide)
    assert {spec.dtype for spec in (*wide.inputs, *wide.outputs)} == {"float32"}


def branched(path: Path, off: float = 0.0) -> Path:
    """`x` (batch, 8) times `w`, then times 1 where `flag` says so and else times -3: `k` in both branches."""
    chance = np.random.default_rng(0)
    w = (chance.normal(size=(8, 4)) + off * chance.normal(size=(8, 4))).astype(np.float16)
    branches = {}
    for name, value in (("then", 1), ("else", -3)):
        held = numpy_helper.from_array(np.array([value] * 4, np.float16), "k")
        outputs = [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT16, ["batch", 4])]
        node = helper.make_node("Mul", ["h", "k"], [f"{name}_y"])
        branches[f"{name}_branch"] = helper.make_graph([node], name, [], outputs, [held])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("If", ["flag"], ["y"], **branches)],
        "branched",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 8]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["batch", 4])],
        [numpy_helper.from_array(w, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_branches_that_share_a_name_keep_their_own_tensors(tmp_path):
    chance, out = np.random.default_rng(1), tmp_path / "out.onnx"
    x, flag = chance.normal(size=(32, 8)).astype(np.float16), np.arange(32).reshape(32, 1) % 2 == 0
    np.savez(tmp_path / "x.npz", x=x, flag=flag)
    student = branched(tmp_path / "student.onnx", 0.2)
    ran = trtcompress(
        *("recover", student, "--teacher", branched(tmp_path / "teacher.onnx"), "--data", tmp_path / "x.npz"),
        *("-o", out, "--steps", "4", "--lr", "1e-3", "--no-blockwise"),
    )
    assert ran.code == 0, ran.err
    before, after = onnx.load(student).graph, onnx.load(out).graph
    assert before.initializer != after.initializer, "it has learnt"
    kept = {a.name: numpy_helper.to_array(a.g.initializer[0]).tolist() for a in after.node[1].attribute}
    assert kept == {"then_branch": [1] * 4, "else_branch": [-3] * 4}


def test_a_weight_that_outgrew_float16_is_refused(place, tmp_path):
    half = read_model(place / "student.onnx")
    wide = onnx.load(in_float32(half, tmp_path / "wide.onnx").path)
    name, grown = wide.graph.initializer[0].name, numpy_helper.to_array(wide.graph.initializer[0]).copy()
    grown.flat[0] = 7e4
    wide.graph.initializer[0].CopyFrom(numpy_helper.from_array(grown, name))
    onnx.save(wide, tmp_path / "trained.onnx")
    with pytest.raises(ModelError, match="what was trained is greater than float16 holds") as raised:
        in_halves(read_model(tmp_path / "trained.onnx"), half, tmp_path / "out.onnx")
    assert raised.value.where == f"{half.path}: '{name}'"
    assert not (tmp_path / "out.onnx").exists()
