"""Recovery on an NVIDIA GPU: precision, metrics, blocks, quantization, a kill, and memory."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import zoo
from command_line import done
from digit_nets import images, top1, write_cut, write_images, write_teacher
from small_builds import answers
from tiny_views import loop_of
from trtcompress.recovery import blockwise
from trtcompress.recovery.batches import held_out
from trtcompress.recovery.checkpoint import load
from trtcompress.recovery.devices import make_fabric
from trtcompress.recovery.job import BLOCKS, TRAINED, Job, load_weights, train
from trtcompress.recovery.pairs import Pair
from trtcompress.recovery.pool import fill
from trtcompress.recovery.settings import Training
from trtcompress.recovery.state import STATE
from trtcompress_calibration.samples import Sample
from trtcompress_graph.load import read_model
from trtcompress_graph.torch_view import to_onnx, to_torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no GPU")

TESTS = Path(__file__).parents[2]
PRECISIONS = ("32", "bf16-mixed", "16-mixed")
SHORT = Training(steps=60, batch=16, rate=3e-3)
LENGTH = ("--epochs", "8", "--lr", "1e-2")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with teacher.onnx, student.onnx and labelled images."""
    folder = tmp_path_factory.mktemp("digits")
    write_cut(write_teacher(folder / "teacher.onnx"), folder / "student.onnx")
    write_images(folder / "images.npz", labels=True)
    return folder


def recover(place: Path, out: str, *arguments: object, student: str = "student.onnx") -> Any:
    given = (place / student, "--teacher", place / "teacher.onnx", "--data", place / "images.npz")
    return done("recover", *given, "-o", place / out, "--json", *arguments).json


TERMS = (("logits", 1.0), ("features", 0.5))


def weights(pair: Pair) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().cpu().clone() for name, parameter in pair.student.named_parameters()}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_learns_on_the_gpu_in_every_precision(tmp_path, precision):
    loop, pair = loop_of(tmp_path, replace(SHORT, steps=200, rate=1e-2, precision=precision), TERMS)
    found = loop.run()
    assert found.after < 0.6 * found.before
    assert {(p.device.type, p.dtype) for p in pair.student.parameters()} == {("cuda", torch.float32)}


def test_the_gpu_learns_what_the_cpu_learns(tmp_path, monkeypatch):
    """The same steps in float32, of which only the order of sums differs."""
    loop, pair = loop_of(tmp_path / "gpu", SHORT, TERMS)
    loop.run()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    other, expected = loop_of(tmp_path / "cpu", SHORT, TERMS)
    other.run()
    assert {p.device.type for p in expected.student.parameters()} == {"cpu"}
    one, two = weights(pair), weights(expected)
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=2e-3) for name in two)


def test_the_same_run_gives_the_same_bits(tmp_path):
    found = []
    for name in ("one", "other"):
        loop, pair = loop_of(tmp_path / name, SHORT, TERMS)
        loop.run()
        found.append(weights(pair))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_gradients_too_large_for_float16_lower_the_scale_and_leave_the_step_out(tmp_path, monkeypatch):
    loop, pair = loop_of(tmp_path, replace(SHORT, precision="16-mixed"), TERMS)
    scaler = loop.state.fabric.strategy.precision.scaler
    forward, seen, scales = loop.state.inner.forward, 0, []

    def steep(*arguments, judged=False, **named):
        nonlocal seen
        seen += not judged
        scales.append(scaler.get_scale())
        value = forward(*arguments, judged=judged, **named)
        return value * (1e34 / value.detach()) if seen == 20 and not judged else value

    monkeypatch.setattr(loop.state.inner, "forward", steep)
    found = loop.run()
    assert (found.steps, found.rollbacks) == (60, 0)
    assert scaler.get_scale() < max(scales), "it was lowered"
    assert found.after < found.before
    assert all(torch.isfinite(value).all() for value in weights(pair).values())
    kept = load(tmp_path / STATE)
    assert kept is not None
    assert kept["precision"]["scale"] == scaler.get_scale()


@pytest.mark.parametrize(
    "how",
    [
        ("--precision", "32"),
        ("--precision", "bf16-mixed", "--checkpoint-activations"),
        ("--precision", "16-mixed", "--labels"),
        ("--devices", "0", "--optimizer", "sgd"),
    ],
    ids=lambda how: "-".join(how).strip("-"),
)
def test_the_command_line(place, how):
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    rate = LENGTH if "sgd" not in how else ("--epochs", "8")
    told = recover(place, "made.onnx", *rate, "--metric", "top1", *how)
    assert torch.cuda.max_memory_allocated() > held, "it ran elsewhere"
    assert told["loss_after"] < 0.5 * told["loss_before"]
    assert top1(place / "made.onnx") > top1(place / "student.onnx") + 0.1
    x, y = images()
    judged = np.flatnonzero(held_out(512))
    score = float((answers(place / "made.onnx", x=x[judged]).argmax(1) == y[judged]).mean())
    assert told["metric_after"] == pytest.approx(score, abs=2.1 / len(judged)), "what was told is what was written"


def test_memory_is_given_back(place):
    def run() -> tuple[int, int]:
        recover(place, "made.onnx", "--epochs", "1", "--lr", "1e-3", "--metric", "top1")
        gc.collect()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    torch.cuda.empty_cache()
    first, second = run(), run()
    assert second[0] <= first[0], "nothing of a training lives on"
    assert second[1] <= first[1]
    assert second[1] < 128 << 20, "but for the workspace of cuBLAS"


KILLED = """
import os, signal, sys
from trtcompress.recovery.stepping import Stepper

advance = Stepper.advance

def advance_or_die(self, step, rate, share, led):
    if self.state.facts["step"] == 40 and "total" in self.state.facts:
        os.kill(os.getpid(), signal.SIGKILL)
    return advance(self, step, rate, share, led)

Stepper.advance = advance_or_die
from trtcompress.cli.main import run
run(sys.argv[1:])
"""


def test_killed_and_started_again_it_ends_with_the_same_bytes(place):
    given = (place / "student.onnx", "--teacher", place / "teacher.onnx", "--data", place / "images.npz", *LENGTH)
    done("recover", *given, "-o", place / "peace.onnx")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "recover", *map(str, given), "-o", str(place / "killed.onnx")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (place / "killed.onnx").exists()
    ran = done("recover", *given, "-o", place / "killed.onnx")
    assert "go on with the training that was there" in ran.err
    assert (place / "killed.onnx").read_bytes() == (place / "peace.onnx").read_bytes()


def noisy(name: str, folder: Path) -> tuple[Path, Path, Path]:
    """A network of the zoo, itself with noise in its matrices, and samples."""
    model = zoo.model(name)
    proto = onnx.load(model.path)
    chance = np.random.default_rng(0)
    for held in proto.graph.initializer:
        array = numpy_helper.to_array(held)
        if array.dtype == np.float32 and array.ndim > 1:
            noise = chance.normal(size=array.shape) * 0.3 * array.std()
            held.CopyFrom(numpy_helper.from_array((array + noise).astype(np.float32), held.name))
    student = folder / "student.onnx"
    onnx.save(proto, student)
    drawn = [zoo.feeds(name, zoo.shapes(name)[0], seed=seed) for seed in range(24)]
    samples = {spec.name: np.concatenate([feed[spec.name] for feed in drawn]) for spec in model.inputs}
    np.savez(folder / "samples.npz", **samples)
    return student, model.path, folder / "samples.npz"


@pytest.mark.parametrize(
    ("name", "share"),
    [("resnet_bottleneck", 0.7), ("lstm", 0.97), ("torch_encoder", 0.7), ("unet", 0.7), ("bert", 0.7)],
)
def test_networks_of_every_kind(name, share, tmp_path):
    student, teacher, samples = noisy(name, tmp_path)
    told = done(
        *("recover", student, "--teacher", teacher, "--data", samples, "-o", tmp_path / "made.onnx", "--json"),
        *("--epochs", "20", "--lr", "1e-3", "--batch", "16", "--precision", "bf16-mixed"),
    ).json
    assert told["loss_after"] < share * told["loss_before"]


def test_zeros_stay_zero(place):
    proto = onnx.load(place / "student.onnx")
    for held in proto.graph.initializer:
        if held.name == "features.3.weight":
            array = numpy_helper.to_array(held).copy()
            array.ravel()[::2] = 0
            held.CopyFrom(numpy_helper.from_array(array, held.name))
    onnx.save(proto, place / "sparse.onnx")
    recover(place, "made.onnx", *LENGTH, student="sparse.onnx")
    made = {w.name: numpy_helper.to_array(w) for w in onnx.load(place / "made.onnx").graph.initializer}
    assert not made["features.3.weight"].ravel()[::2].any()
    assert made["features.3.weight"].ravel()[1::2].all()


def job_of(place: Path, folder: Path, student: str = "student.onnx", **how: Any) -> Job:
    model = read_model(place / student)
    samples = [Sample({"x": image[None]}) for image in images()[0][:256]]
    pool = fill(samples, model.inputs, folder / "pool", "samples")
    (folder / "job").mkdir()
    return Job(
        model, read_model(place / "teacher.onnx"), pool, Training(**{"steps": 60, "rate": 1e-3} | how), folder / "job"
    )


def test_blocks_come_nearer(place, tmp_path):
    job = job_of(place, tmp_path)
    said: list[str] = []
    blockwise.fit_blocks(job, lambda what, now, total: said.append(what))
    errors = [[float(word) for word in what.rpartition("error ")[2].split(" to ")] for what in said if "error" in what]
    assert errors
    assert any(after < 0.7 * before for before, after in errors)
    kept = load(job.folder / BLOCKS)
    assert kept is not None
    assert {value.device.type for value in kept["weights"].values()} == {"cpu"}


def test_quantized_networks_are_written_as_they_were_trained(place, tmp_path):
    """The integers of the file, the numbers of ONNX Runtime, and those of the view that was trained."""
    np.savez(tmp_path / "some.npz", x=images()[0][:64])
    done("calibrate", place / "student.onnx", "--data", tmp_path / "some.npz", "-o", tmp_path / "ranges.json")
    done("quantize", place / "student.onnx", "--ranges", tmp_path / "ranges.json", "-o", place / "int8.onnx")
    told = recover(place, "trained.onnx", "--qat", "--epochs", "6", "--lr", "1e-3", student="int8.onnx")
    assert told["loss_after"] < told["loss_before"]

    job = job_of(place, tmp_path, "int8.onnx", rate=1e-3)
    found = train(make_fabric(job.training), job, lambda what, now, total: None)
    assert isinstance(found, dict)
    view = job.view()
    load_weights(view, load(job.folder / TRAINED)["weights"])  # type: ignore[index]
    x = images()[0][512:640]
    with torch.no_grad():
        on_cuda = view.cuda()(torch.from_numpy(x).cuda()).cpu().numpy()
    made = to_onnx(view.cpu(), like=job.student, out=tmp_path / "made.onnx")
    again = {w.name: w.data_type for w in onnx.load(made.path).graph.initializer}
    assert again == {w.name: w.data_type for w in onnx.load(job.student.path).graph.initializer}
    with torch.no_grad():
        read = to_torch(made).cuda()(torch.from_numpy(x).cuda()).cpu().numpy()
    wanted = _as_written(made.path, x)
    for other in (on_cuda, wanted):
        assert float(np.abs(read - other).max()) < 0.05 * float(np.abs(wanted).max()), "but for ties of rounding"
        assert float(np.abs(read - other).mean()) < 1e-3 * float(np.abs(wanted).max())


def _as_written(model: Path, x: np.ndarray) -> np.ndarray:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    first: np.ndarray = ort.InferenceSession(str(model), options).run(None, {"x": x})[0]
    return first
