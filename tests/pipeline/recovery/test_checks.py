"""What a training would fail at is refused before it starts, with the place and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from digit_nets import images, write_cut, write_teacher
from trtcompress.recovery import blockwise
from trtcompress.recovery.checks import check_job
from trtcompress.recovery.job import Job, open_subjects
from trtcompress.recovery.notes import notes_before
from trtcompress.recovery.pool import fill
from trtcompress.recovery.settings import Training
from trtcompress_calibration.samples import Sample
from trtcompress_graph.errors import DataError, UsageError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Model, Model]:
    """The digit classifier, and one that was cut."""
    folder = tmp_path_factory.mktemp("digits")
    teacher = write_teacher(folder / "teacher.onnx")
    return read_model(write_cut(teacher, folder / "student.onnx")), read_model(teacher)


def job_of(models: tuple[Model, Model], folder: Path, labels: list[object], *losses: str, batch: int = 8) -> Job:
    x = images()[0]
    taken = [
        Sample({"x": x[i : i + 1]}, None if label is None else np.asarray(label)) for i, label in enumerate(labels)
    ]
    pool = fill(taken, models[0].inputs, folder / "pool", "digits.npz")
    return Job(*models, pool, Training(losses=tuple((name, 1.0) for name in losses), batch=batch), folder / "training")


@pytest.mark.parametrize(("batch", "runs", "seen"), [(None, 2, 12), (1, 12, 12), (5, 3, 15)])
def test_what_outputs_hold_is_told_by_several_samples_whatever_the_batch(models, tmp_path, batch, runs, seen):
    """Of a fixed batch of 5 the last one of the twelve that are trained on is filled up; a step takes 8."""
    if batch is not None:
        for model in models:
            proto = onnx.load(model.path)
            for value in (*proto.graph.input, *proto.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = batch
            onnx.save(proto, tmp_path / model.path.name)
        models = tuple(read_model(tmp_path / model.path.name) for model in models)
    subjects = open_subjects(job_of(models, tmp_path, GOOD))
    assert len(subjects.runs) == runs
    assert subjects.pair.first.teacher["output"].shape == (seen, 10)
    assert subjects.labels is not None
    assert len(subjects.labels) == seen
    if batch == 1:
        boxes = [np.zeros((1 + place % 3, 5)) for place in range(16)]
        assert open_subjects(job_of(models, tmp_path / "boxes", boxes)).labels is None, "as many as a sample has"


GOOD: list[object] = [i % 10 for i in range(16)]


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ((5, 10), "sample 5", "its label is 10, and the output 'output' has the classes 0 to 9"),
        ((7, -1), "sample 7", "its label is -1"),
        ((3, [1, 2]), "sample 3", "its label has the shape [2], that of sample 0 []"),
        ((4, "seven"), "sample 4", "its label is no number"),
        ((4, float("nan")), "sample 4", "its label holds NaN"),
        ((9, None), "digits.npz", "needs labels, and sample 9 has none"),
    ],
)
def test_a_label_that_does_not_fit_is_named_with_its_sample(models, tmp_path, change, where, what):
    labels = list(GOOD)
    labels[change[0]] = change[1]
    with pytest.raises(DataError) as raised:
        check_job(job_of(models, tmp_path, labels, "labels"))
    assert raised.value.what.startswith(what) or what in raised.value.what
    assert raised.value.where.endswith(where)
    assert raised.value.hint


def test_labels_of_which_none_counts_are_refused(models, tmp_path):
    with pytest.raises(DataError, match="all labels are -100: none of them counts"):
        check_job(job_of(models, tmp_path, [-100] * 16, "labels"))


def test_labels_of_the_wrong_count_are_refused(models, tmp_path):
    with pytest.raises(DataError, match=r"labels of shape \[14, 3\] do not fit answers of shape \[14, 10\]"):
        check_job(job_of(models, tmp_path, [[0.0, 1.0, 2.0]] * 18, "labels"))


@pytest.mark.parametrize("odd", [[float(label) for label in GOOD], [[label] for label in GOOD]])
def test_classes_of_another_type_or_shape_are_told_to_be_cast_or_squeezed(models, tmp_path, odd):
    with pytest.raises(DataError) as caught:
        check_job(job_of(models, tmp_path, odd, "labels"))
    assert "cast or squeeze them" in caught.value.hint


def test_labels_that_fit_are_taken(models, tmp_path):
    check_job(job_of(models, tmp_path / "classes", [*GOOD[:-1], -100], "labels"))
    check_job(job_of(models, tmp_path / "numbers", [[0.5] * 10] * 16, "logits", "labels"))


def test_labels_that_no_loss_reads_may_be_anything(models, tmp_path):
    check_job(job_of(models, tmp_path, ["a", "b", *GOOD[2:]], "logits"))


@pytest.mark.parametrize("loss", ["affinity", "attention"])
def test_a_loss_that_does_not_fit_is_refused_before_any_block(models, tmp_path, monkeypatch, loss):
    from trtcompress.config import RecoverSettings
    from trtcompress.datasets import open_data
    from trtcompress.recovery.recover import Request, recover
    from trtcompress.stage import DataRef

    np.savez(tmp_path / "x.npz", x=images()[0][:16])
    monkeypatch.setattr(blockwise, "fit_blocks", lambda *given: pytest.fail("a block was fitted"))
    student, teacher = models
    if loss == "attention":
        student = teacher = read_model(_plain(tmp_path / "plain.onnx"))
        np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32))
    data = open_data(DataRef("x.npz", tmp_path, "", None, None), student)
    request = Request(student, teacher, RecoverSettings(loss=(loss,)), tmp_path / "out.onnx", tmp_path / "work")
    with pytest.raises(UsageError) as raised:
        recover(request, data, lambda what, done, total: None)
    assert raised.value.where == f"loss '{loss}'"
    assert not (tmp_path / "work").exists()


def _plain(path: Path) -> Path:
    """`x` (batch, 6) to `y` (batch, 4), without attention and without maps."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((6, 4), np.float32), "w")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", s]) for n, s in (("x", 6), ("y", 4)))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], "plain", [x], [y], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize(("count", "batch"), [(1, 8), (8, 1)])
def test_samples_are_compared_only_where_a_batch_holds_two(models, tmp_path, count, batch):
    with pytest.raises(DataError, match="a batch holds one") as raised:
        check_job(job_of(models, tmp_path, GOOD[:count], "relations", batch=batch))
    assert raised.value.where == "digits.npz"


@pytest.mark.parametrize(("batch", "devices", "fits"), [(7, 4, False), (8, 4, True), (64, 7, False), (64, 6, True)])
def test_samples_are_compared_only_where_each_process_holds_two(models, tmp_path, batch, devices, fits):
    """Of the sixteen samples twelve are trained on."""
    job = job_of(models, tmp_path, GOOD, "relations", batch=batch)
    job = replace(job, training=replace(job.training, devices=devices))
    if fits:
        check_job(job)
        return
    with pytest.raises(DataError, match=f"fewer than two for each of {devices} processes") as raised:
        check_job(job)
    assert f"a batch of {2 * devices} or more" in raised.value.hint


def test_student_and_teacher_that_may_have_changed_places_are_told(models, tmp_path):
    swapped = "the teacher has fewer weights than the student: look whether they changed places"
    for order, told in ((models, False), (models[::-1], True)):
        folder = tmp_path / str(told)
        assert (swapped in set(notes_before(job_of(order, folder, GOOD, "logits")))) is told


def test_samples_that_are_one_and_the_same_are_told(models, tmp_path):
    x = images()[0]
    for name, chosen in (("equal", [3] * 12), ("others", [3, *[4] * 11])):
        taken = [Sample({"x": x[place : place + 1]}, None) for place in chosen]
        pool = fill(taken, models[0].inputs, tmp_path / name, "digits.npz")
        job = Job(*models, pool, Training(losses=(("logits", 1.0),), batch=8), tmp_path / name / "training")
        told = any(words.startswith("the first 12 samples are all equal") for words in notes_before(job))
        assert told is (name == "equal")
