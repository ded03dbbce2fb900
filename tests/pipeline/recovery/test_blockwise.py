"""Block by block: a residual network that was cut is fitted to the full one, and nothing gets worse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from trtcompress.recovery import block_fit, blockwise, midway
from trtcompress.recovery.blocks import tasks_of
from trtcompress.recovery.checkpoint import load
from trtcompress.recovery.job import BLOCKS, Job, open_subjects
from trtcompress.recovery.pool import fill
from trtcompress.recovery.settings import Training
from trtcompress.recovery.taps import tapped
from trtcompress_calibration.samples import Sample
from trtcompress_graph.load import read_model

WIDTH, BLOCKS_IN_ALL = 12, 3
TESTS = str(Path(__file__).parents[2])


def residual(path: Path, inner: int, seed: int = 0) -> Path:
    """`x` (batch, 12), three blocks `x + W2 relu(W1 x)` of the inner width, a head to `y` (batch, 4)."""
    chance = np.random.default_rng(seed)
    weights, nodes, tensor = {}, [], "x"
    for block in range(BLOCKS_IN_ALL):
        into, out = chance.normal(size=(WIDTH, 32)) * 0.3, chance.normal(size=(32, WIDTH)) * 0.3
        weights |= {f"b{block}.first": into[:, :inner], f"b{block}.last": out[:inner]}
        nodes += [
            helper.make_node("MatMul", [tensor, f"b{block}.first"], [f"b{block}.h"], name=f"b{block}.h"),
            helper.make_node("Relu", [f"b{block}.h"], [f"b{block}.r"], name=f"b{block}.r"),
            helper.make_node("MatMul", [f"b{block}.r", f"b{block}.last"], [f"b{block}.o"], name=f"b{block}.o"),
            helper.make_node("Add", [tensor, f"b{block}.o"], [f"b{block}.sum"], name=f"b{block}.sum"),
        ]
        tensor = f"b{block}.sum"
    weights["head"] = chance.normal(size=(WIDTH, 4))
    nodes.append(helper.make_node("MatMul", [tensor, "head"], ["y"], name="head"))
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def job_of(folder: Path, inner: int = 20) -> Job:
    teacher, student = residual(folder / "full.onnx", 32), residual(folder / "cut.onnx", inner)
    chance = np.random.default_rng(7)
    samples = [Sample({"x": chance.normal(size=(1, WIDTH)).astype(np.float32)}) for _ in range(160)]
    model = read_model(student)
    pool = fill(samples, model.inputs, folder / "pool", "samples")
    (folder / "job").mkdir()
    return Job(model, read_model(teacher), pool, Training(steps=400, batch=32), folder / "job")


def error_at(job: Job, name: str) -> float:
    subjects = open_subjects(job)
    outputs = [tapped(v, subjects.pair.outputs, (name,)) for v in (subjects.pair.student, subjects.pair.teacher)]
    with torch.no_grad():
        one, other = (view(*subjects.runs[0])[name] for view in outputs)
    return float((one - other).square().mean() / other.var())


def test_blocks_end_at_the_sums_and_each_weight_is_in_one(tmp_path):
    pair = open_subjects(job_of(tmp_path)).pair
    assert [shared.name for shared in pair.milestones(8)] == ["b0.sum", "b1.sum", "b2.sum"]
    tasks = tasks_of(pair)
    assert [task.name for task in tasks] == ["b0.sum", "b1.sum", "b2.sum", "y"]
    assert [task.part.reads for task in tasks] == [("x",), ("b0.sum",), ("b1.sum",), ("b2.sum",)]
    assert sum(len(task.weights) for task in tasks) == len(list(pair.student.parameters())) == 7


def test_every_block_comes_nearer_and_so_does_the_output(tmp_path):
    job = job_of(tmp_path)
    names = ("b0.sum", "b1.sum", "b2.sum", "y")
    before = [error_at(job, name) for name in names]
    said: list[str] = []
    blockwise.fit_blocks(job, lambda what, done, total: said.append(what))
    after = [error_at(job, name) for name in names]
    assert all(new < 0.7 * old for new, old in zip(after, before, strict=True))
    layers = ("b0.sum", "b1.sum", "b2.sum", "head")
    begun = [f"fitting block {place} of 4, 200 steps at the most" for place in range(1, 5)]
    told = begun, [f"block up to {layer}" for layer in layers]
    assert said.pop(2).startswith("the other blocks take about "), "once one was fitted"
    assert (said[::2], [line.split(":")[0] for line in said[1::2]]) == told, "by the node's name"


def test_a_block_that_is_right_already_is_left_alone(tmp_path):
    job = job_of(tmp_path, inner=32)
    blockwise.fit_blocks(job, lambda what, done, total: None)
    weights = load(job.folder / BLOCKS)["weights"]
    held = {w.name: numpy_helper.to_array(w) for w in onnx.load(job.student.path).graph.initializer}
    assert all(np.array_equal(held[name], value.numpy()) for name, value in weights.items())


@pytest.mark.parametrize("factor", [3, float("nan")])
def test_blocks_that_together_harm_the_outputs_are_not_kept(tmp_path, monkeypatch, factor):
    """Each may come nearer to the teacher by its own measure, and the whole go astray."""

    def harmful(job, subjects, task, steps, limit, midway):
        with torch.no_grad():
            for weight in task.weights:
                weight.mul_(factor)
        return 1.0, 0.5

    monkeypatch.setattr(blockwise, "fit_block", harmful)
    job, said = job_of(tmp_path), []
    fitted = blockwise.fit_blocks(job, lambda what, done, total: said.append(what))
    held = {w.name: numpy_helper.to_array(w) for w in onnx.load(job.student.path).graph.initializer}
    weights = load(job.folder / BLOCKS)["weights"]
    assert all(np.array_equal(held[name], value.numpy()) for name, value in weights.items())
    assert said[-1] == "fitted blocks together made the student worse: it begins as it was before them"
    assert fitted == blockwise.fit_blocks(job, lambda what, done, total: None), "as the file keeps it"


def test_it_goes_on_behind_the_last_block_that_was_fitted(tmp_path, monkeypatch):
    job = job_of(tmp_path)
    blockwise.fit_blocks(job, lambda what, done, total: None)
    expected = load(job.folder / BLOCKS)["weights"]
    (job.folder / BLOCKS).unlink()

    def killed(what: str, done: int, total: int | None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blockwise.fit_blocks(job, killed)
    assert load(job.folder / BLOCKS)["done"] == 2
    said: list[int] = []
    blockwise.fit_blocks(job, lambda what, done, total: said.append(done))
    assert said == [2, 3, 3, 4], "begun and fitted"
    found = load(job.folder / BLOCKS)["weights"]
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    said.clear()
    blockwise.fit_blocks(job, lambda what, done, total: said.append(done))
    assert said == [], "all was done"


KILLED = """
import os, pathlib, runpy, signal, sys
from trtcompress.recovery import block_fit, blockwise, midway

held = runpy.run_path(sys.argv[1])
midway.EVERY, midway.COST = 0, 1e9
left, schedule = int(sys.argv[3]), block_fit.schedule

def schedule_or_die(step, steps):  # in the middle of a step
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return schedule(step, steps)

block_fit.schedule = schedule_or_die
blockwise.fit_blocks(held["job_of"](pathlib.Path(sys.argv[2])), lambda what, done, total: None)
"""


@pytest.mark.parametrize("made", [30, 101, 250, 330])
def test_killed_in_a_block_it_goes_on_at_the_same_step(tmp_path, monkeypatch, made):
    """At both rates of the first and the second block, of 100 steps each."""
    (tmp_path / "peace").mkdir()
    (tmp_path / "killed").mkdir()
    peace = job_of(tmp_path / "peace")
    blockwise.fit_blocks(peace, lambda what, done, total: None)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, __file__, str(tmp_path / "killed"), str(made)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    job = replace(peace, folder=tmp_path / "killed" / "job")
    assert load(job.folder / blockwise.BLOCK)["step"] == made % 100
    steps: list[int] = []
    schedule = block_fit.schedule
    monkeypatch.setattr(block_fit, "schedule", lambda step, of: steps.append(step) or schedule(step, of))
    blockwise.fit_blocks(job, lambda what, done, total: None)
    assert (steps[0], len(steps)) == (made % 100, 800 - made)
    assert not (job.folder / blockwise.BLOCK).exists()
    one, other = (load(done.folder / BLOCKS)["weights"] for done in (peace, job))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_checkpoints_in_a_block_are_rare(tmp_path, monkeypatch):
    written: list[Path] = []
    monkeypatch.setattr(midway, "save", lambda state, path: written.append(path))
    blockwise.fit_blocks(job_of(tmp_path), lambda what, done, total: None)
    assert not written, "none within seconds"
    kept = midway.Midway(tmp_path / "block.pt", 0)
    now = midway.time.monotonic()
    times = iter([now + 31, now + 31, now + 31, now + 41, now + 72, now + 1042])
    monkeypatch.setattr(midway.time, "monotonic", lambda: next(times))
    assert kept.is_due()
    kept.keep(step=3)  # which takes ten seconds
    assert not kept.is_due(), "31 seconds later: a hundredth of the time is for them"
    assert kept.is_due()


@pytest.mark.parametrize(
    ("total", "steps"), [(1, 1), (2, 1), (60, 30), (200, 100), (400, 100), (800, 200), (3000, 400)]
)
def test_blocks_cost_no_more_than_the_training(tmp_path, total, steps):
    job = job_of(tmp_path)
    assert blockwise._steps(replace(job, training=Training(steps=total))) == steps
    assert blockwise._steps(replace(job, training=Training(minutes=1))) == 400
