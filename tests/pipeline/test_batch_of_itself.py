"""A build without a config: the batch axis that all inputs begin with gets lengths, and that is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from command_line import done, trtcompress
from float_graphs import Net
from small_builds import small_classifier
from trtcompress.cli.build_configs import load


def test_a_batch_axis_needs_no_lengths(tmp_path: Path) -> None:
    small = small_classifier(tmp_path)
    wanted = ("build", small.model, "--data", small.data, "--target", "rtx-4090", "--dry-run")
    told = done(*wanted, cwd=tmp_path).err
    assert "the batch axis 'batch' is 1 to 8 long, usually 1; others: --set 'model.inputs.x.batch=[1, 8, 16]'" in told
    assert "batch axis" not in done(*wanted, "--set", "model.inputs.x.batch=[1, 2, 4]", cwd=tmp_path).err
    assert load(str(small.model), ["data.calibration=d.npz"]).config.model.inputs == {"x": {"batch": (1, 1, 8)}}
    set_by_hand = load(str(small.model), ["data.calibration=d.npz", "model.inputs.x.batch=[1, 2, 4]"])
    assert set_by_hand.config.model.inputs == {"x": {"batch": (1, 2, 4)}}


@pytest.mark.parametrize("shapes", [{"x": ("batch", 4), "z": (1, 4)}, {"x": ("batch", "n"), "z": ("batch", "n")}])
def test_other_axes_have_to_be_given(shapes: dict[str, tuple[int | str, ...]], tmp_path: Path) -> None:
    net = Net()
    net.node("Add", ["x", "z"], "y")
    net.save(tmp_path / "m.onnx", shapes, {"y": shapes["x"]})
    assert load(str(tmp_path / "m.onnx"), ["data.calibration=d.npz"]).config.model.inputs == {}


def test_an_engine_for_a_gpu_is_built_without_a_config(tmp_path: Path) -> None:
    net = Net()
    net.node("Relu", [net.product("Gemm", "x", "h", 64, 64)], "y")
    net.save(tmp_path / "m.onnx", {"x": ("batch", 64)}, {"y": ("batch", 64)})
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32))
    ran = trtcompress(
        *("build", "m.onnx", "--data", "d.npz", "--target", "rtx-4090:float"),
        *("--out", "out", "--store", "store", "--set", "measure.seconds=0.01"),
        cwd=tmp_path,
    )
    assert ran.code == 0, ran.err
    pbtxt = next((tmp_path / "out").rglob("config.pbtxt")).read_text()
    assert "max_batch_size: 8" in pbtxt
