"""A Q/DQ graph of the digit classifier learns under its quantization; what is written is what was trained."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from command_line import trtcompress
from digit_nets import images, write_cut, write_images, write_teacher
from trtcompress.config import RecoverSettings
from trtcompress.recovery import recover as recover_module
from trtcompress.recovery.checkpoint import load
from trtcompress.recovery.halves import has_halves, in_float32, in_halves
from trtcompress.recovery.job import TRAINED, Job, load_weights, weights_of
from trtcompress.recovery.quantization_aware import in_fp8, train_quantized
from trtcompress.recovery.recover import Request
from trtcompress_calibration.data import open_dataset
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """teacher.onnx (float), int8.onnx (u8/s8 Q/DQ with ranges that cut off far too much) and images.npz."""
    folder = tmp_path_factory.mktemp("qat")
    write_cut(write_teacher(folder / "full.onnx"), folder / "teacher.onnx", (16, 24, 48))
    write_images(folder / "images.npz", 256)
    np.savez(folder / "faint.npz", x=images()[0][:16] * 0.5)
    for command in (
        ("calibrate", folder / "teacher.onnx", "--data", folder / "faint.npz", "-o", folder / "ranges.json"),
        ("quantize", folder / "teacher.onnx", "--ranges", folder / "ranges.json", "-o", folder / "int8.onnx"),
    ):
        ran = trtcompress(*command)
        assert ran.code == 0, ran.err
    return folder


def as_written(model: Path, x: np.ndarray) -> np.ndarray:
    """Answers of a graph whose Q/DQ pairs are computed as they stand there."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    first: np.ndarray = ort.InferenceSession(str(model), options).run(None, {"x": x})[0]
    return first


def error(place: Path, name: str) -> float:
    x = images()[0][512:]
    wanted = as_written(place / "teacher.onnx", x)
    return float(np.square(as_written(place / name, x) - wanted).mean() / wanted.var())


@pytest.fixture(scope="module")
def trained(place) -> Path:
    """trained.onnx, and beside it answers.npy: what the weights of the training answer before they are written."""

    def answered(request: Request, job: Job) -> Model:
        view = job.view()
        load_weights(view, load(job.folder / TRAINED)["weights"])
        with torch.no_grad():
            np.save(place / "answers.npy", view(torch.from_numpy(images()[0][512:576])).numpy())
        np.savez(place / "masters.npz", **{name: value.numpy() for name, value in weights_of(view).items()})
        return write(request, job)

    write = recover_module._write
    with mock.patch.object(recover_module, "_write", answered):
        ran = trtcompress(
            *("recover", place / "int8.onnx", "--teacher", place / "teacher.onnx", "--data", place / "images.npz"),
            *("-o", place / "trained.onnx", "--qat", "--epochs", "8", "--lr", "1e-3"),
        )
    assert ran.code == 0, ran.err
    return place / "trained.onnx"


def test_it_regains_what_quantization_lost(place, trained):
    before, after = error(place, "int8.onnx"), error(place, "trained.onnx")
    assert before > 0.1
    assert after < 0.3 * before


def test_the_graph_is_what_was_trained(place, trained):
    """The float masters answer, rounded in each pass, as the integers do that were written."""
    found, expected = as_written(trained, images()[0][512:576]), np.load(place / "answers.npy")
    off = np.abs(found - expected) / np.abs(expected).max()
    assert (off < 1e-3).mean() > 0.99
    assert off.max() < 3e-3, "a value between two steps may go the other way, by the last bit of its quotient"
    start = as_written(place / "int8.onnx", images()[0][512:576])
    assert np.abs(start - expected).max() > 0.1 * np.abs(expected).max(), "it has moved"
    masters = np.load(place / "masters.npz")
    written = {w.name: numpy_helper.to_array(w) for w in onnx.load(trained).graph.initializer}
    between = [
        name
        for name in masters
        if written[name].dtype == np.int8 and len(np.unique(masters[name])) > written[name].size / 2
    ]
    assert between, "masters lie between the steps of their grids"


def test_nodes_stay_and_weights_stay_integers(place, trained):
    before, after = onnx.load(place / "int8.onnx"), onnx.load(trained)
    assert before.graph.node == after.graph.node
    kinds = {held.name: held.data_type for held in before.graph.initializer}
    assert {held.name: held.data_type for held in after.graph.initializer} == kinds
    one, other = ({w.name: numpy_helper.to_array(w) for w in m.graph.initializer} for m in (before, after))
    changed = {name for name in one if one[name].tobytes() != other[name].tobytes()}
    assert any(one[name].dtype == np.int8 for name in changed)
    scales = {name for name in one if one[name].dtype == np.float32 and name.endswith("_scale")}
    assert scales & changed, "ranges that cut off too much are learned away"
    assert all((other[name] > 0).all() for name in scales)


def test_ranges_are_kept_where_that_is_asked_for(place, trained):
    ran = trtcompress(
        *("recover", place / "int8.onnx", "--teacher", place / "teacher.onnx", "--data", place / "images.npz"),
        *("-o", place / "kept.onnx", "--qat", "--epochs", "2", "--lr", "1e-3", "--no-learn-scales", "--no-blockwise"),
    )
    assert ran.code == 0, ran.err
    before, after = (
        {held.name: held.raw_data for held in onnx.load(place / name).graph.initializer}
        for name in ("int8.onnx", "kept.onnx")
    )
    changed = {name for name in before if before[name] != after[name]}
    assert any(name.endswith("_quantized") for name in changed)
    assert not any(name.endswith("_scale") for name in changed)
    assert error(place, "trained.onnx") < error(place, "kept.onnx") < error(place, "int8.onnx")


def test_weights_in_float16_for_tensorrt(place):
    int8 = place / "trt.onnx"
    quantize = (
        "quantize",
        place / "teacher.onnx",
        "--ranges",
        place / "ranges.json",
        "--target",
        "rtx-4090",
        "-o",
        int8,
    )
    ran = trtcompress(*quantize)
    assert ran.code == 0, ran.err
    ran = trtcompress(
        *("recover", int8, "--teacher", place / "teacher.onnx", "--data", place / "images.npz"),
        *(
            "-o",
            place / "trt_trained.onnx",
            "--qat",
            "--no-blockwise",
            "--samples",
            "64",
            "--epochs",
            "12",
            "--lr",
            "3e-3",
        ),
    )
    assert ran.code == 0, ran.err
    kinds = [[held.data_type for held in onnx.load(m).graph.initializer] for m in (int8, place / "trt_trained.onnx")]
    assert kinds[0] == kinds[1]
    assert onnx.TensorProto.FLOAT16 in kinds[0]
    assert error(place, "trt_trained.onnx") < 0.7 * error(place, "trt.onnx")


def test_float16_graphs_go_to_float32_and_back_with_the_same_bytes(place, tmp_path):
    model = read_model(place / "trt.onnx")
    wide = in_float32(model, tmp_path / "wide.onnx")
    assert has_halves(model)
    assert not has_halves(wide)
    x = images()[0][512:576]
    one, other = as_written(model.path, x), as_written(wide.path, x)
    assert np.allclose(one, other, rtol=0, atol=0.02 * np.abs(one).max())
    assert in_halves(wide, model, tmp_path / "back.onnx").digest == model.digest


def test_fp8_is_left_as_it_is(place, tmp_path):
    """A view of it holds its weights as constants: scales and biases alone would move."""
    ran = trtcompress(
        *("quantize", place / "teacher.onnx", "--ranges", place / "ranges.json", "--target", "rtx-4090:fp8"),
        *("-o", place / "fp8.onnx"),
    )
    assert ran.code == 0, ran.err
    student, teacher = read_model(place / "fp8.onnx"), read_model(place / "teacher.onnx")
    assert not in_fp8(read_model(place / "int8.onnx"))
    data = open_dataset(place / "images.npz", student.inputs, base=place)
    told: list[object] = []
    given = (student, teacher, RecoverSettings(steps=8), data, tmp_path / "out.onnx", tmp_path / "work")
    made = train_quantized(*given, lambda *what: told.append(what))
    assert (made.digest, made.steps, told) == (student.digest, 0, [])
    assert "FP8 is not trained under quantization" in made.notes[0]
    for options in (("--qat",), ()):
        ran = trtcompress(
            *("recover", place / "fp8.onnx", "--teacher", place / "teacher.onnx", "--data", place / "images.npz"),
            *("-o", tmp_path / "no.onnx", *options),
        )
        assert (ran.code, "it is in FP8" in ran.err) == (2, True), ran.err
    assert not (tmp_path / "no.onnx").exists()


def test_a_quantized_student_is_not_trained_by_accident(place):
    ran = trtcompress(
        *("recover", place / "int8.onnx", "--teacher", place / "teacher.onnx", "--data", place / "images.npz"),
        *("-o", place / "no.onnx"),
    )
    assert (ran.code, "add --qat" in ran.err) == (2, True)
