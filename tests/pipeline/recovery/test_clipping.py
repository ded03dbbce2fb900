"""Ranges of activations are fitted by what they cost at the outputs, before any weight moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from trtcompress.recovery import blockwise, clipping
from trtcompress.recovery.checkpoint import load
from trtcompress.recovery.job import BLOCKS, CLIPPED, Job, open_subjects
from trtcompress.recovery.loop import Outcome
from trtcompress.recovery.notes import notes_behind
from trtcompress.recovery.pool import fill
from trtcompress.recovery.settings import Training
from trtcompress_calibration.samples import Sample
from trtcompress_graph.load import read_model
from trtcompress_graph.torch_view import activation_quantizers, least_ratios, to_torch

WIDTH, SAMPLES = 8, 320


def net(path: Path, scale: float | None) -> Path:
    """`x` (batch, 8) times a weight to `y` (batch, 4); with a scale `x` is rounded to int8 first, the weight too."""
    weight = np.random.default_rng(0).normal(size=(WIDTH, 4)).astype(np.float32)
    held = {"w": weight}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    if scale is not None:
        of_weight = np.float32(np.abs(weight).max() / 127)
        integers = np.round(weight / of_weight).astype(np.int8)
        held = {"w": integers, "w_scale": of_weight, "x_scale": np.float32(scale), "zero": np.int8(0)}
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "zero"], ["x_q"]),
            helper.make_node("DequantizeLinear", ["x_q", "x_scale", "zero"], ["x_d"]),
            helper.make_node("DequantizeLinear", ["w", "w_scale", "zero"], ["w_d"]),
            helper.make_node("MatMul", ["x_d", "w_d"], ["y"], name="product"),
        ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def job_of(folder: Path, scale: float | None, **training: object) -> Job:
    student, teacher = net(folder / "student.onnx", scale), net(folder / "teacher.onnx", None)
    values = np.random.default_rng(1).normal(size=(SAMPLES, 1, WIDTH)).astype(np.float32)
    model = read_model(student)
    pool = fill([Sample({"x": value}) for value in values], model.inputs, folder / "pool", "samples")
    (folder / "job").mkdir()
    return Job(model, read_model(teacher), pool, Training(**{"steps": 200, "batch": 32, **training}), folder / "job")


def quiet(what: str, done: int, total: int | None) -> None:
    """Told of nothing."""


@pytest.mark.parametrize(("scale", "least", "most"), [(0.3, 0.25, 0.26), (0.005, 1.99, 2.01), (0.03, 0.79, 1.26)])
def test_ranges_come_to_what_the_outputs_like(tmp_path, scale, least, most):
    """Of samples of deviation 1: steps of 0.3 are far too wide, +-0.64 cuts off half of them, +-3.8 is about right."""
    job, said = job_of(tmp_path, scale), []
    fitted = clipping.fit_clipping(job, lambda what, done, total: said.append(what))
    kept = load(job.folder / CLIPPED)["weights"]
    ratio = float(kept["x_scale"]) / scale
    assert least <= ratio <= most
    held = {w.name: numpy_helper.to_array(w) for w in onnx.load(job.student.path).graph.initializer}
    masters = to_torch(job.student, learn_scales=True).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in masters.items() if name != "x_scale"), "nothing else"
    assert fitted.came is not None
    assert fitted.came.loss > 0
    assert held["x_scale"] == np.float32(scale), "files stay as they were"
    if abs(ratio - 1) > 1e-6:
        assert said[-1].startswith("ranges of 1 activations fitted: held out ")
        before, after = (float(word) for word in said[-1].rpartition("held out ")[2].split(" to "))
        assert after < before
        assert float(open_subjects(job).pair.student.state_dict()["x_scale"]) == pytest.approx(ratio * scale)


def test_a_cost_is_what_the_errors_of_a_sample_come_to_at_the_output(tmp_path):
    """Against its definition, computed in float64 with NumPy: errors are summed over a sample, then squared."""
    view = to_torch(net(tmp_path / "net.onnx", 0.05), learn_scales=True)
    x = np.random.default_rng(2).normal(size=(6, WIDTH)).astype(np.float32)
    pulls = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
    listener = clipping.Listener(view)
    listener.count = 6
    listener.run(torch.from_numpy(x)).backward(torch.from_numpy(pulls))
    held = {w.name: numpy_helper.to_array(w) for w in onnx.load(tmp_path / "net.onnx").graph.initializer}
    weight = held["w"].astype(np.float64) * held["w_scale"]
    expected = []
    for ratio in clipping.RATIOS:
        scale = float(np.float32(0.05)) * ratio
        error = np.clip(np.rint(x / scale), -128, 127) * scale - x
        expected.append(np.square((error * (pulls @ weight.T)).sum(1)).sum())
    assert list(listener.costs) == ["x_scale"]
    assert np.allclose(listener.costs["x_scale"], expected, rtol=1e-3)


def test_ranges_that_bring_nothing_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(clipping, "chosen", lambda costs, least: 8.0)
    job, said = job_of(tmp_path, 0.03), []
    clipping.fit_clipping(job, lambda what, done, total: said.append(what))
    assert float(load(job.folder / CLIPPED)["weights"]["x_scale"]) == np.float32(0.03)
    assert said[-1] == "ranges stay as they were calibrated: others bring the outputs no nearer"


def test_what_a_fit_came_to_is_kept_on_disk(tmp_path):
    job, said = job_of(tmp_path, 0.3), []
    fitted = clipping.fit_clipping(job, quiet)
    assert clipping.fit_clipping(job, lambda what, done, total: said.append(what)) == fitted
    assert not said


@pytest.mark.parametrize(("scale", "training"), [(None, {}), (0.3, {"learn_scales": False})])
def test_without_scales_that_are_learned_there_is_nothing_to_fit(tmp_path, scale, training):
    job = job_of(tmp_path, scale, **training)
    assert clipping.fit_clipping(job, quiet).came is None
    assert not (job.folder / CLIPPED).exists()


def test_gradients_of_weights_are_neither_computed_nor_left(tmp_path):
    view = to_torch(net(tmp_path / "net.onnx", 0.05), learn_scales=True)
    assert set(activation_quantizers(view).values()) == {"x_scale"}
    trained = {name for name, held in view.named_parameters() if held.requires_grad}
    with clipping.activations_alone(view):
        view(torch.randn(2, WIDTH)).sum().backward()
        assert {name for name, held in view.named_parameters() if held.grad is not None} == {"x_scale"}
    assert all(held.grad is None for held in view.parameters())
    assert {name for name, held in view.named_parameters() if held.requires_grad} == trained


def test_costs_that_are_not_finite_decide_nothing():
    assert clipping.chosen(np.full(len(clipping.RATIOS), np.nan)) == 1.0
    falling = np.linspace(2, 1, len(clipping.RATIOS))
    assert clipping.chosen(falling) == clipping.RATIOS[-1]
    assert clipping.chosen(np.zeros(len(clipping.RATIOS))) == 1.0, "a branch that nothing went through"
    assert clipping.chosen(falling, least=0.6) == pytest.approx(2 ** (-1 / 3)), "a bias needs its steps"
    assert clipping.chosen(falling, least=7.0) >= 1.0
    assert clipping.chosen(np.ones(len(clipping.RATIOS))) == max(clipping.RATIOS), (
        "the widest of those that cost as much"
    )


@pytest.mark.parametrize(
    ("fitted", "words"),
    [("ranges", "than its ranges had on samples"), ("blocks", "its blocks had on samples"), ("", "teacher on samples")],
)
def test_a_training_that_brought_nothing_is_told_from_fits_that_did(tmp_path, fitted, words):
    job = job_of(tmp_path, 0.3, blockwise=False)
    outcome = Outcome(200, 0, 1e-3, before=0.5, after=0.5, metric_before=None, metric=None, rollbacks=0, fitted=fitted)
    (note,) = notes_behind(job, outcome)
    assert note.startswith("no step of the training brought it nearer to the teacher")
    assert words in note


def test_what_lies_on_its_grid_already_has_no_say(tmp_path):
    """A Reshape between two pairs of one scale, as INT8 kernels take it: the second rounds nothing."""
    student = net(tmp_path / "net.onnx", 0.05)
    model = onnx.load(student)
    first, second = model.graph.node[:2]
    again = [
        helper.make_node(n.op_type, [f"again_{n.input[0]}", *n.input[1:]], [f"again_{n.output[0]}"])
        for n in (first, second)
    ]
    again[0].input[0] = "moved"
    model.graph.node[3].input[0] = again[1].output[0]
    model.graph.node.insert(2, helper.make_node("Transpose", ["x_d"], ["back"], perm=[1, 0]))
    model.graph.node.insert(3, helper.make_node("Transpose", ["back"], ["moved"], perm=[1, 0]))
    for place, node in enumerate(again):
        model.graph.node.insert(4 + place, node)
    onnx.save(model, tmp_path / "twice.onnx")
    x, pull = torch.randn(6, WIDTH), torch.randn(6, 4)
    costs = []
    for path in (student, tmp_path / "twice.onnx"):
        view = to_torch(path, learn_scales=True)
        listener = clipping.Listener(view)
        listener.count = 6
        listener.run(x).backward(pull)
        costs.append(listener.costs)
    assert len(activation_quantizers(view)) == 2
    assert set(activation_quantizers(view).values()) == {"x_scale"}, "one scale"
    assert np.allclose(costs[0]["x_scale"], costs[1]["x_scale"])


def test_a_range_leaves_room_for_biases(tmp_path):
    """An int32 bias of 2^28: its steps may shrink to a fourth."""
    model = onnx.load(net(tmp_path / "net.onnx", 0.05))
    held = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    bias = np.array([1, -(2**28), 5, 0], np.int32)
    scale = np.float32(0.05) * held["w_scale"]
    added = {"b": bias, "b_scale": np.float32(scale), "b_zero": np.int32(0)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in added.items())
    model.graph.node.pop()
    model.graph.node.append(helper.make_node("DequantizeLinear", ["b", "b_scale", "b_zero"], ["b_d"]))
    model.graph.node.append(helper.make_node("Gemm", ["x_d", "w_d", "b_d"], ["y"], name="product"))
    onnx.save(model, tmp_path / "biased.onnx")
    view = to_torch(tmp_path / "biased.onnx", learn_scales=True)
    assert least_ratios(view) == {"x_scale": pytest.approx(0.25, rel=1e-4)}


@pytest.mark.parametrize(("fixed", "most"), [(None, 16), (4, 4)])
def test_samples_of_all_passes_are_counted(tmp_path, fixed, most):
    """A model of a fixed batch of 4 is not told by 16 passes of it alone."""
    job = job_of(tmp_path, 0.05)
    job = replace(job, pool=replace(job.pool, fixed=fixed))
    runs = list(clipping._runs(job))
    assert all(len(inputs[0]) == count <= most for inputs, count in runs)
    assert 256 <= sum(count for _, count in runs) < 256 + most
    short = list(clipping._runs(replace(job, training=replace(job.training, steps=4))))
    assert 16 <= sum(count for _, count in short) < 16 + most


def test_nothing_is_fitted_where_there_is_no_time(tmp_path):
    job, said = job_of(tmp_path, 0.3, steps=None, minutes=1e-6), []
    fitted = clipping.fit_clipping(job, lambda what, done, total: said.append(what))
    assert said[-1] == "no time to fit ranges: they stay as they were calibrated"
    assert fitted.came is not None
    assert float(load(job.folder / CLIPPED)["weights"]["x_scale"]) == np.float32(0.3)


def test_blocks_begin_with_the_ranges_and_fall_back_on_them(tmp_path, monkeypatch):
    def harmful(job, subjects, task, steps, limit, midway):
        with torch.no_grad():
            for weight in task.weights:
                weight.mul_(3)
        return 1.0, 0.5

    monkeypatch.setattr(blockwise, "fit_block", harmful)
    monkeypatch.setattr(blockwise, "tasks_of", lambda pair: [SimpleNamespace(weights=[pair.student.w], name="y")])
    job = job_of(tmp_path, 0.3)
    clipping.fit_clipping(job, quiet)
    fitted = load(job.folder / CLIPPED)["weights"]
    blockwise.fit_blocks(job, quiet)
    kept = load(job.folder / BLOCKS)["weights"]
    assert all(torch.equal(kept[name], value) for name, value in fitted.items())
    (job.folder / CLIPPED).write_bytes(b"damaged")
    clipping.fit_clipping(job, quiet)
    assert not (job.folder / BLOCKS).exists(), "what was fitted behind it begins anew"
    assert all(torch.equal(load(job.folder / CLIPPED)["weights"][name], value) for name, value in fitted.items())
