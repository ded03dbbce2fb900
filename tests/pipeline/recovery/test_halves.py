"""A graph in float16 from its inputs to its outputs is trained in float32, and gets its types back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from command_line import trtcompress
from digit_nets import images, write_cut, write_teacher
from trtcompress.recovery.halves import has_halves, in_float32
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
