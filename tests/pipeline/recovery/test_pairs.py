"""What student and teacher are compared by."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_static
from torch.utils._python_dispatch import TorchDispatchMode

from onnx_models import OneBatch, model, value
from trtcompress.recovery.blocks import tasks_of
from trtcompress.recovery.learner import Learner, make_terms, start_terms, teacher_view, tensors_of
from trtcompress.recovery.losses import LossOptions
from trtcompress.recovery.pairs import check_alike, make_pair
from trtcompress.recovery.taps import tapped
from trtcompress_graph.errors import ModelError
from trtcompress_graph.load import read_model
from trtcompress_graph.torch_view import to_torch

LOWEST = float(np.finfo(np.float32).min)


def write_masked(path: Path, seed: int) -> Path:
    """`x` (batch, 4, 8) through two residual matrices, plus a `mask` (batch, 4) that takes tokens out of a softmax."""
    chance = np.random.default_rng(seed)
    held = {
        "w0": chance.normal(size=(8, 8)).astype(np.float32) * 0.3,
        "w1": chance.normal(size=(8, 8)).astype(np.float32) * 0.3,
        "lowest": np.float32(LOWEST),
        "one": np.float32(1),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Sub", ["one", "mask"], ["off"]),
        helper.make_node("Mul", ["off", "lowest"], ["low"]),
        helper.make_node("Add", ["low", "off"], ["masked"]),  # a sum of two computed tensors, as a residual one is
        helper.make_node("MatMul", ["x", "w0"], ["first"]),
        helper.make_node("Add", ["x", "first"], ["sum0"]),
        helper.make_node("MatMul", ["sum0", "w1"], ["second"]),
        helper.make_node("Add", ["sum0", "second"], ["sum1"]),
        helper.make_node("ReduceMean", ["sum1"], ["scores"], axes=[2], keepdims=0),
        helper.make_node("Add", ["scores", "masked"], ["seen"]),
        helper.make_node("Softmax", ["seen"], ["weights"], axis=1),
        helper.make_node("Unsqueeze", ["weights", "axes"], ["row"]),
        helper.make_node("MatMul", ["row", "sum1"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "masked",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 8]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", 4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1, 8])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_masks_are_not_compared_and_gradients_stay_finite(tmp_path):
    """A mask of the lowest float32 is infinite in bfloat16, and no difference of infinities is a number."""
    student, teacher = (read_model(write_masked(tmp_path / f"{seed}.onnx", seed)) for seed in (0, 1))
    x = torch.randn(6, 4, 8)
    mask = torch.ones(6, 4)
    mask[:, 3] = 0
    views = to_torch(student), to_torch(teacher).requires_grad_(False)
    pair = make_pair(*views, student, ((x, mask),))
    names = {shared.name for shared in pair.shared}
    assert {"sum0", "sum1"} <= names
    assert not names & {"off", "low", "masked", "seen"}
    terms = make_terms(pair, (("logits", 1.0), ("features", 1.0)), LossOptions())
    start_terms(pair, terms, ((x, mask),), None)
    learner = Learner(pair, terms, tapped(pair.student, pair.outputs, tensors_of(terms)))
    with torch.autocast("cpu", torch.bfloat16):
        loss = learner((x, mask), teacher_view(pair, terms)(x, mask), None)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in pair.student.parameters() if p.grad is not None)


def test_a_teacher_of_one_batch_size_is_refused(tmp_path):
    student = read_model(write_masked(tmp_path / "student.onnx", 0))
    held = onnx.load(student.path)
    for given in held.graph.input:
        given.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(held, tmp_path / "teacher.onnx")
    teacher = read_model(tmp_path / "teacher.onnx")
    with pytest.raises(ModelError, match="takes 'x' in batches of 2 alone, the student in any") as raised:
        check_alike(student, teacher)
    assert "--axis" in raised.value.hint
    check_alike(teacher, student)  # the student's batch is fixed then, and the teacher takes any


def test_what_a_quantizer_clamps_is_not_compared_with_what_it_reads(tmp_path):
    """ONNX Runtime's quantizer leaves out each Relu, and gives its name to the matrix product before it."""
    chance = np.random.default_rng(0)
    weights = {f"w{place}": chance.normal(size=(16, 16)).astype(np.float32) * 0.4 for place in range(3)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h0"], name="first"),
        helper.make_node("Relu", ["h0"], ["r0"], name="clamp"),
        helper.make_node("MatMul", ["r0", "w1"], ["h1"], name="second"),
        helper.make_node("Sigmoid", ["h1"], ["s1"], name="gate"),
        helper.make_node("MatMul", ["s1", "w2"], ["y"], name="third"),
    ]
    onnx.save(
        model(nodes, [value("x", ["n", 16])], [value("y", ["n", 16])], weights, opset=20), tmp_path / "float.onnx"
    )
    x = chance.normal(size=(32, 16)).astype(np.float32)
    quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", OneBatch(x), weight_type=QuantType.QInt8)
    student, teacher = (read_model(tmp_path / f"{name}.onnx") for name in ("int8", "float"))
    made_by = {output: node.op_type for node in onnx.load(student.path).graph.node for output in node.output}
    assert made_by["r0"] == "MatMul", "else this shows nothing"
    pair = make_pair(to_torch(student, learn_scales=True), to_torch(teacher), student, ((torch.from_numpy(x),),))
    assert [shared.name for shared in pair.shared if shared.op == "MatMul"] == ["h1"]
    assert [task.name for task in tasks_of(pair)] == ["h1", "y"]


def test_what_was_fused_stands_for_what_it_was_fused_from(tmp_path):
    """A product and a sum became a Gemm, and a Relu a Clip."""
    weights = {"w": np.eye(4, dtype=np.float32), "b": np.ones(4, np.float32), "low": np.array(0, np.float32)}
    spelled = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["clamped"]),
        helper.make_node("Neg", ["clamped"], ["y"]),
    ]
    fused = [
        helper.make_node("Gemm", ["x", "w", "b"], ["sum"]),
        helper.make_node("Clip", ["sum", "low"], ["clamped"]),
        spelled[-1],
    ]
    for name, nodes in (("spelled", spelled), ("fused", fused)):
        onnx.save(model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], weights), tmp_path / f"{name}.onnx")
    student, teacher = (read_model(tmp_path / f"{name}.onnx") for name in ("fused", "spelled"))
    pair = make_pair(to_torch(student), to_torch(teacher), student, ((torch.randn(8, 4),),))
    assert [shared.name for shared in pair.shared] == ["sum", "clamped"]


class Most(TorchDispatchMode):
    """The most bytes that tensors made under it held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._made: list[weakref.ref[torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self._made = [ref for ref in self._made if ref() is not None] + [weakref.ref(out)]
            alive = (ref() for ref in self._made)
            storages = [tensor.untyped_storage() for tensor in alive if tensor is not None]
            self.bytes = max(self.bytes, sum({one.data_ptr(): one.nbytes() for one in storages}.values()))
        return out


def test_inner_tensors_are_looked_at_one_by_one(tmp_path):
    depth, x = 32, torch.randn(256, 16)
    nodes = []
    for place in range(depth):
        nodes.append(helper.make_node("MatMul", ["x" if place == 0 else f"t{place - 1}", "w"], [f"h{place}"]))
        nodes.append(helper.make_node("Tanh", [f"h{place}"], ["y" if place == depth - 1 else f"t{place}"]))
    weights = {"w": np.eye(16, dtype=np.float32)}
    onnx.save(model(nodes, [value("x", ["n", 16])], [value("y", ["n", 16])], weights), tmp_path / "deep.onnx")
    held = read_model(tmp_path / "deep.onnx")
    views = to_torch(held), to_torch(held).requires_grad_(False)
    with Most() as most:
        pair = make_pair(*views, held, ((x,),))
    assert len(pair.shared) == 2 * depth - 1
    assert most.bytes < 8 * x.nbytes, "and not both models' tensors, of which there are 128"
