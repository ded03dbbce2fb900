"""What is doubtful about a build stands on stderr and in its report, and single commands say their part of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from command_line import trtcompress
from float_graphs import IMAGE, Net, residual_net

FEW = "calibrated on 3 samples"
ZERO = "the input 'z' is 0 everywhere in all calibration samples"
EMPTY = "every sample is zero"
SAME = "evaluated on the data of the calibration"
NOTHING = "nothing could be quantized: "
BUILD = ("--store", "store", "--out", "out", "--set", "measure.seconds=0.01", "--set", "gates.min_cosine=0.5")


def test_poor_data_and_nothing_to_quantize(tmp_path: Path) -> None:
    net = Net()
    net.node("Add", [net.node("Mul", [net.node("Sigmoid", ["x"], "s"), "x"], "m"), "z"], "y")
    net.save(tmp_path / "m.onnx", {**IMAGE, "z": IMAGE["x"]}, {"y": IMAGE["x"]})
    zeros = np.zeros((3, 3, 16, 16), np.float32)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=zeros.shape).astype(np.float32), z=zeros)
    ran = trtcompress("build", "m.onnx", "--data", "d.npz", *BUILD, cwd=tmp_path)
    assert ran.code in (0, 1), ran.err
    report = (tmp_path / "out" / "m" / "report.md").read_text()
    for note in (FEW, ZERO, SAME, NOTHING):
        assert note in ran.err
        assert note in report
    alone = trtcompress("calibrate", "m.onnx", "--data", "d.npz", "-o", "r.json", cwd=tmp_path)
    assert FEW in alone.err
    assert ZERO in alone.err
    assert NOTHING in trtcompress("quantize", "m.onnx", "--ranges", "r.json", "-o", "q.onnx", cwd=tmp_path).err


def test_samples_that_hold_nothing_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    residual_net(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.zeros((16, 3, 16, 16), np.float32))
    for command in (("build", "m.onnx", *BUILD), ("calibrate", "m.onnx", "-o", "r.json")):
        ran = trtcompress(*command, "--data", "d.npz", cwd=tmp_path)
        assert ran.code == 3
        assert EMPTY in ran.err
    assert not (tmp_path / "r.json").exists()
    ran = trtcompress("build", "m.onnx", "--data", "d.npz", *BUILD, "--target", "cpu:float", cwd=tmp_path)
    assert ran.code == 0, "a float engine needs no ranges"


def test_good_data(tmp_path: Path) -> None:
    residual_net(tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    for name in ("d", "e"):
        np.savez(tmp_path / f"{name}.npz", x=rng.standard_normal((16, 3, 16, 16)).astype(np.float32))
    evaluation = ("--set", "data.evaluation=e.npz")
    ran = trtcompress("build", "m.onnx", "--data", "d.npz", *evaluation, *BUILD, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert not [note for note in ("calibrated on", "everywhere", SAME, NOTHING) if note in ran.err]
