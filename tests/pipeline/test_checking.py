"""What is compared and timed: all of each output, and batches of the size that is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtcompress.checking import CheckOptions, emulate_graph, timing_feeds
from trtcompress.config import GateSettings, MeasureSettings
from trtcompress_calibration.data import Dataset, open_dataset
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model

STEPS = 6


def steps_first(path: Path, weight: np.ndarray, batch: int | str = "batch") -> Model:
    """x [batch, 4] -> y [steps, batch]: the batch is not the first axis of the output."""
    nodes = [helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("MatMul", ["w", "t"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "steps",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [STEPS, batch])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return read_model(path)


def data(folder: Path, model: Model, count: int) -> Dataset:
    np.savez(folder / "data.npz", x=np.random.default_rng(1).normal(size=(count, 4)).astype(np.float32))
    return open_dataset("data.npz", model.inputs, base=folder)


def no_progress(done: int, total: int | None = None) -> None:
    assert done


@pytest.mark.parametrize("count", [1, 4])
def test_every_step_of_an_output_is_compared(tmp_path: Path, count: int):
    weight = np.random.default_rng(0).normal(size=(STEPS, 4)).astype(np.float32)
    reference = steps_first(tmp_path / "right.onnx", weight)
    weight[-1] *= -1
    wrong = steps_first(tmp_path / "wrong.onnx", weight)
    axes = {"x": {"batch": AxisRange(1, 4, 8)}}
    dataset = data(tmp_path, reference, count)
    (same,) = emulate_graph(reference, reference, "e", dataset, (), axes, no_progress).parity
    (other,) = emulate_graph(reference, wrong, "e", dataset, (), axes, no_progress).parity
    assert (same.cosine, same.max_abs) == (1.0, 0.0)
    assert other.max_abs > 0.1
    assert other.cosine < 0.95


def test_a_fixed_batch_is_timed_under_its_size(tmp_path: Path):
    model = steps_first(tmp_path / "m.onnx", np.ones((STEPS, 4), np.float32), batch=3)
    feeds = timing_feeds(model, data(tmp_path, model, 5), CheckOptions((), GateSettings(), MeasureSettings(), {}))
    assert {size: feed["x"].shape for size, feed in feeds.items()} == {3: (3, 4)}


def test_batches_of_the_range_are_timed(tmp_path: Path):
    model = steps_first(tmp_path / "m.onnx", np.ones((STEPS, 4), np.float32))
    options = CheckOptions((), GateSettings(), MeasureSettings(), {"x": {"batch": AxisRange(1, 4, 8)}})
    feeds = timing_feeds(model, data(tmp_path, model, 3), options)
    assert {size: feed["x"].shape for size, feed in feeds.items()} == {n: (n, 4) for n in (1, 4, 8)}
