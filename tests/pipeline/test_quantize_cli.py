"""`trtcompress quantize`: what it writes, and options that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import trtcompress
from float_graphs import IMAGE, Net, images, measured
from trtcompress import refining
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.trt_cache import cache_text
from trtcompress_engines.encodings import encodings
from trtcompress_graph.encoding import PrecisionPlan
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges, read_ranges


def joined(path: Path) -> Model:
    """Two convolutions, of which one is read alone too, behind a Concat that gives both one scale."""
    net = Net()
    quiet, loud = net.conv("x", "quiet", 3, 8), net.conv("x", "loud", 3, 8)
    net.constants["loud.weight"] *= 10
    net.conv(net.node("Concat", [quiet, loud], "both", axis=1), "y", 16, 8, 1)
    net.conv(quiet, "z", 8, 8, 1)
    shape = ("batch", 8, 16, 16)
    return net.save(path, IMAGE, {"y": shape, "z": shape})


@pytest.mark.parametrize(
    ("options", "idle", "needed"),
    [
        (("--metric", "top1"), "--metric", "--max-drop"),
        (("--metric", "top1", "--data", "d.npz", "--weights", "auto"), "--metric", "--max-drop"),
        (("--samples", "8"), "--samples", "--data"),
        (("--state", "h=hn"), "--state", "--data"),
        (("--tensorrt", "8.5.2"), "--tensorrt", "--cache"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    tmp_path: Path, options: tuple[str, ...], idle: str, needed: str
) -> None:
    joined(tmp_path / "m.onnx")
    ran = trtcompress("quantize", "m.onnx", *options, "-o", "q.onnx", cwd=tmp_path)
    assert ran.code == 2
    assert f"{idle} does nothing without {needed}" in ran.err
    assert not (tmp_path / "q.onnx").exists()


def test_a_cache_is_of_the_plan_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, encoding = joined(tmp_path / "m.onnx"), encodings()["trt-int8"]
    ranges = measured(model, images(8))
    ranges.write(tmp_path / "r.json")

    def refined(model: Model, plan: PrecisionPlan, judge: object, ranges: Ranges, *_: object) -> PrecisionPlan:
        return plan_precision(model, ranges, encoding, kept={"Conv:y": "it costs most"})

    monkeypatch.setattr(refining, "refine", refined)
    (tmp_path / "d.npz").touch()
    ran = trtcompress(
        *("quantize", "m.onnx", "--ranges", "r.json", "--target", "rtx-4090:int8", "--cache", "c.cache"),
        *("--max-drop", "0.01", "--data", "d.npz", "-o", "q.onnx"),
        cwd=tmp_path,
    )
    assert ran.code == 0, ran.err
    read, first = read_ranges(tmp_path / "r.json"), plan_precision(model, ranges, encoding)
    plans = (first, refined(model, first, 0, ranges))
    before, after = (cache_text(model, read, plan, encoding, "8.6.1") for plan in plans)
    assert before != after
    assert (tmp_path / "c.cache").read_text() == after
