"""BatchNorm that is put back while a student trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from digit_nets import write_cut, write_images, write_teacher
from trtcompress.recovery.batches import WIDE
from trtcompress.recovery.devices import make_fabric
from trtcompress.recovery.job import Job, open_subjects, placed, train
from trtcompress.recovery.norms import by_batch, settle, statistics, takes_norms
from trtcompress.recovery.optimizer import Average
from trtcompress.recovery.pool import fill
from trtcompress.recovery.settings import Training
from trtcompress.recovery.thrift import share_equal
from trtcompress_calibration.data import open_dataset
from trtcompress_calibration.samples import Sample
from trtcompress_graph.load import read_model
from trtcompress_graph.torch_view import to_onnx, to_torch


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("norms")
    teacher, images = write_teacher(folder / "teacher.onnx"), folder / "images.npz"
    write_cut(teacher, folder / "student.onnx")
    write_images(images)
    student = read_model(folder / "student.onnx")
    pool = fill(open_dataset(images, student.inputs, base=folder), student.inputs, folder / "pool", "images")
    (folder / "training").mkdir()
    return Job(student, read_model(teacher), pool, Training(batch=32), folder / "training")


def test_it_changes_nothing_before_the_first_step(job):
    plain, normed = open_subjects(job), open_subjects(job, norms=True)
    assert statistics(normed.pair.student)
    assert not statistics(plain.pair.student)
    expected = plain.pair.student(*plain.runs[0])
    assert torch.allclose(normed.pair.student(*normed.runs[0]), expected, atol=1e-4)
    settle(normed.pair.student, job, torch.device("cpu"))
    assert torch.allclose(normed.pair.student(*normed.runs[0]), expected, atol=1e-4)
    with by_batch(normed.pair.student, WIDE):
        by_its_own = normed.pair.student(*normed.runs[0])
    assert not torch.allclose(by_its_own, expected, atol=1e-4), "statistics of 64 samples are not those of all"
    assert torch.corrcoef(torch.stack([by_its_own.flatten(), expected.flatten()]))[0, 1] > 0.95


def test_weights_of_the_blocks_count(job):
    """The norms take over biases that were trained without them."""
    subjects = open_subjects(job)
    weights = {name: value + 0.1 for name, value in subjects.pair.student.state_dict().items()}
    torch.save({"weights": weights}, job.folder / "blocks.pt")
    try:
        plain, normed = open_subjects(job), open_subjects(job, norms=True)
        assert not torch.allclose(plain.pair.first.student["output"], subjects.pair.first.student["output"])
        found = normed.pair.first.student["output"]
        assert torch.allclose(found, plain.pair.first.student["output"], rtol=1e-4, atol=1e-3)
    finally:
        (job.folder / "blocks.pt").unlink()


def test_what_is_written_is_what_the_training_judged(job, tmp_path):
    subjects = open_subjects(job, norms=True)
    student = subjects.pair.student
    optimizer = torch.optim.SGD(student.parameters(), 0.01)
    for _ in range(3):
        with by_batch(student, WIDE):
            student(*subjects.runs[0]).square().mean().backward()
        optimizer.step()
    made = to_onnx(student, like=job.student, out=tmp_path / "out.onnx")
    assert onnx.load(made.path).graph.node == onnx.load(job.student.path).graph.node
    assert torch.allclose(to_torch(made)(*subjects.runs[0]), student(*subjects.runs[0]), atol=1e-4)


@pytest.mark.parametrize(
    ("training", "taken"),
    [
        (Training(batch=32), True),
        (Training(batch=8), False),
        (Training(batch=32, steps=20), False),
        (Training(batch=32, devices=4), True),
        (Training(batch=32, norms=False), False),
        (Training(batch=32, steps=20, norms=True), True),
        (Training(batch=8, norms=True), False),
        (Training(batch=32, checkpoint_activations=True), False),
    ],
)
def test_only_wide_batches_have_statistics(job, training, taken):
    assert takes_norms(replace(job, training=training)) is taken


def test_a_model_without_convolutions_is_not_run_to_settle_nothing(job):
    view = to_torch(job.student)  # no norm was put back
    calls = []
    view.register_forward_hook(lambda *_: calls.append(1))
    settle(view, job, torch.device("cpu"))
    assert not calls


def test_a_small_batch_at_the_end_of_an_epoch_takes_the_running_statistics(job):
    subjects = open_subjects(job, norms=True)
    before = {name: value.clone() for name, value in statistics(subjects.pair.student).items()}
    with by_batch(subjects.pair.student, WIDE - 1):
        subjects.pair.student(*subjects.runs[0])
    assert all(torch.equal(value, before[name]) for name, value in statistics(subjects.pair.student).items())


def test_the_average_holds_the_statistics_that_belong_to_it(job):
    subjects = open_subjects(job, norms=True)
    student = subjects.pair.student
    average = Average(student, 0.5)
    (name, start), *_ = ((name, value.clone()) for name, value in statistics(student).items())
    statistics(student)[name].add_(1)
    average.follow(100)
    assert torch.allclose(average.values[name], start + 0.5)
    with average.in_place():
        assert torch.allclose(statistics(student)[name], start + 0.5)
    assert torch.allclose(statistics(student)[name], start + 1)


def with_norm(path, relu: bool = False) -> None:
    """`x` (batch, 4, 5, 5) through a BatchNormalization of its own."""
    held = {name: np.full(4, value, np.float32) for name, value in (("s", 1), ("b", 0), ("mean", 0.5), ("var", 2))}
    graph = helper.make_graph(
        [
            helper.make_node("BatchNormalization", ["x", *held], ["normed" if relu else "y"]),
            *([helper.make_node("Relu", ["normed"], ["y"])] if relu else []),
        ],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 4, 5, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 4, 5, 5])],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def test_norms_of_the_graph_itself_move_and_leave_the_teacher_alone(tmp_path):
    with_norm(tmp_path / "m.onnx")
    student, teacher = to_torch(tmp_path / "m.onnx"), to_torch(tmp_path / "m.onnx")
    share_equal(student, teacher)
    x = torch.randn(32, 4, 5, 5)
    before = teacher(x)
    assert set(statistics(student)) == {"mean", "var"}
    with by_batch(student, len(x)):
        student(x)
    assert not torch.allclose(statistics(student)["mean"], torch.full((4,), 0.5))
    assert torch.equal(teacher(x), before)


@pytest.mark.parametrize("how", [{"checkpoint_activations": True}, {"norms": False}, {}])
def test_norms_of_the_graph_itself_train_where_they_may(tmp_path, how):
    """Inner tensors that are computed twice, and --no-batchnorm, leave statistics as they are."""
    with_norm(tmp_path / "m.onnx", relu=True)
    model = read_model(tmp_path / "m.onnx")
    chance = np.random.default_rng(0)
    some = [Sample({"x": chance.normal(2, 1, (1, 4, 5, 5)).astype(np.float32)}) for _ in range(96)]
    pool = fill(some, model.inputs, tmp_path / "pool", "samples")
    (tmp_path / "training").mkdir()
    training = Training(batch=32, steps=60, rate=1e-3, blockwise=False, **how)
    job = Job(model, model, pool, training, tmp_path / "training")
    found = train(make_fabric(training), job, lambda what, done, total: None)
    assert isinstance(found, dict), found
    state = torch.load(tmp_path / "training" / "state.pt")["learner"]
    (mean,) = {name.rpartition(".")[2]: value for name, value in state.items() if name.endswith("mean")}.values()
    moved = not torch.equal(mean, torch.full((4,), 0.5))
    assert moved is (not how)


def test_a_pair_that_was_placed_keeps_them(job):
    subjects = open_subjects(job, norms=True)
    pair = placed(subjects.pair, torch.device("cpu"))
    assert statistics(pair.student)
