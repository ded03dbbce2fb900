"""Sequences through models that remember: steps, states, and independence from how samples are batched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper

from assets import asset
from onnx_models import model, save, value
from trtcompress_calibration.batching import batches
from trtcompress_calibration.collect import calibrate, measure
from trtcompress_calibration.stateful import Feedback, Steps, feedback, open_sequences
from trtcompress_graph.errors import DataError, UsageError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Dim, Model
from trtcompress_graph.simplify import simplify

STATE = {"state": "stateN"}
Arrays = Mapping[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("vad") / "vad.onnx"
    return simplify(read_model(asset("silero-vad", "silero_vad_16k_op15.onnx")), path, fix={"sr": 16000})


def sounds(count: int, steps: int, seed: int = 0) -> NDArray[np.float32]:
    """Noise that swells and falls, so that the detector changes its mind."""
    rng = np.random.default_rng(seed)
    loud = rng.uniform(0, 0.3, (count, steps, 1))
    return (rng.standard_normal((count, steps, 576)) * loud).astype(np.float32)


def running_sum(folder: Path, shape: list[Dim], state: list[Dim], axis: int = 0) -> Model:
    """y = x + s, with s fed back from y; `axis`: where the state has the sample axis."""
    turned = (
        helper.make_node("Transpose", ["s"], ["t"], perm=[1, 0]) if axis else helper.make_node("Identity", ["s"], ["t"])
    )
    back = (
        helper.make_node("Transpose", ["y"], ["z"], perm=[1, 0]) if axis else helper.make_node("Identity", ["y"], ["z"])
    )
    add = helper.make_node("Add", ["x", "t"], ["y"], name="add")
    proto = model(
        [turned, add, back], [value("x", shape), value("s", state)], [value("y", shape), value("z", state)], {}
    )
    return read_model(save(proto, folder / "sum.onnx"))


def through(path: Path, fed: Feedback, arrays: Arrays) -> dict[str, NDArray[np.generic]]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return fed.run(lambda feed: dict(zip(names, session.run(names, dict(feed)), strict=True)), arrays)


@pytest.mark.parametrize(
    ("shape", "state", "axis"),
    [(["n", 3], ["n", 3], 0), (["n", 3], [3, "n"], 1), ([1, 3], [1, 3], 0), (["n", 3], [3, "m"], 1)],
)
def test_a_running_sum_over_the_steps(shape: list[Dim], state: list[Dim], axis: int, tmp_path: Path) -> None:
    made = running_sum(tmp_path, shape, state, axis)
    x = np.random.default_rng(0).integers(0, 9, (5, 4, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x)
    data = open_sequences("d.npz", made, {"s": "z"}, base=tmp_path)
    assert data.feedback is not None
    size = 0
    for batch in batches(data, data.inputs, 2):
        found = through(made.path, data.feedback, batch.inputs)
        expected = np.cumsum(x[list(batch.indices)], 1)
        assert found["y"].shape == (batch.count, 4, 3)
        np.testing.assert_array_equal(found["y"], expected)
        np.testing.assert_array_equal(found["z"].reshape(batch.count, 4, 3), expected)
        size = max(size, batch.count)
    assert size == (2 if "n" in shape else 1)


@pytest.mark.parametrize("batched", [True, False])
def test_a_state_that_does_not_start_from_zeros(batched: bool, tmp_path: Path) -> None:
    made = running_sum(tmp_path, ["n", 3], [3, "n"], 1)
    x, start = np.ones((4, 2, 3), np.float32), np.arange(12, dtype=np.float32).reshape(4, 3)
    np.savez(tmp_path / "d.npz", x=x, s=start[..., None] if batched else start)  # [N, 3, 1], or [N, 3]
    data = open_sequences("d.npz", made, {"s": "z"}, base=tmp_path)
    (batch,) = batches(data, data.inputs, 8)
    assert data.feedback is not None
    np.testing.assert_array_equal(through(made.path, data.feedback, batch.inputs)["y"][:, 1], start + 2)
    np.testing.assert_array_equal(data.feedback.first(batch.inputs)["s"], start.T)


def test_steps_have_the_states_of_the_float_model(detector: Model, tmp_path: Path) -> None:
    x = sounds(2, 5)
    np.savez(tmp_path / "d.npz", input=x)
    found = list(Steps(open_sequences("d.npz", detector, STATE, base=tmp_path), detector))
    session = ort.InferenceSession(str(detector.path))
    assert len(found) == 10
    for place, sample in enumerate(found):
        if place % 5 == 0:
            state = np.zeros((2, 1, 128), np.float32)
        np.testing.assert_array_equal(sample.inputs["state"], state)
        np.testing.assert_array_equal(sample.inputs["input"], x[place // 5, None, place % 5])
        state = session.run(["stateN"], dict(sample.inputs))[0]
        assert np.abs(state).max() > 0.01


def folder_of(folder: Path, parts: list[NDArray[np.float32]]) -> Path:
    folder.mkdir()
    for index, part in enumerate(parts):
        np.savez(folder / f"{index}.npz", input=part)
    return folder


def test_ranges_do_not_depend_on_batches_or_order(detector: Model, tmp_path: Path) -> None:
    """Sequences of two lengths; one, three or eight side by side, in any order, in one part or in two."""
    long, short = sounds(5, 6), sounds(4, 3, seed=1)
    one = folder_of(tmp_path / "one", [long, short])
    other = folder_of(tmp_path / "other", [short[::-1], long[[3, 0, 4]], long[[1, 2]]])

    def steps(folder: Path) -> Steps:
        return Steps(open_sequences(folder, detector, STATE, base=tmp_path), detector)

    first = calibrate(detector, steps(one), batch_size=1)
    assert first.samples == 5 * 6 + 4 * 3
    assert first.tensors["state"].max > 0.01
    for folder, size in ((one, 3), (one, 8), (other, 1), (other, 8)):
        assert calibrate(detector, steps(folder), batch_size=size).tensors == first.tensors
    assert calibrate(detector, list(steps(other))).tensors == first.tensors  # as single samples
    halves = [folder_of(tmp_path / name, [part]) for name, part in (("long", long), ("short", short))]
    both = measure(detector, steps(halves[0])) + measure(detector, steps(halves[1]), batch_size=3)
    assert both.ranges("entropy").tensors == first.tensors


def test_samples_limit_sequences_and_memory_holds_one_batch(detector: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", input=sounds(4, 3))
    steps = Steps(open_sequences("d.npz", detector, STATE, samples=2, base=tmp_path), detector)
    sizes = [(batch.count, batch.indices, batch.inputs["state"].shape) for batch in steps.batches(8)]
    assert sizes == [(2, (0, 1), (2, 2, 128))] * 3
    first = next(iter(steps.batches(8))).first()
    assert (first["input"].shape, first["state"].shape) == ((1, 576), (2, 1, 128))


@pytest.mark.parametrize(
    ("state", "message", "hint"),
    [
        ({"stat": "stateN"}, "no input 'stat'", "did you mean 'state'?"),
        ({"state": "stateM"}, "no output 'stateM'", "did you mean 'stateN'?"),
        ({"state": "output"}, "does not fit the input 'state'", "one and the same state"),
    ],
)
def test_a_state_that_is_none_is_refused(detector: Model, state: dict[str, str], message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        feedback(detector, state)
    assert hint in caught.value.hint
    assert caught.value.where == "data.state"


def test_a_model_of_states_alone_is_refused(tmp_path: Path) -> None:
    made = running_sum(tmp_path, ["n", 3], ["n", 3])
    with pytest.raises(UsageError, match="every input is a state"):
        feedback(made, {"x": "y", "s": "z"})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"input": np.zeros((2, 576), np.float32)}, "wrong rank"),
        ({"sound": np.zeros((2, 3, 576), np.float32)}, "no array for the input 'input'"),
        ({"input": np.full((2, 3, 576), np.nan, np.float32)}, "holds NaN"),
        ({"input": np.zeros((2, 3, 576), np.float32), "state": np.zeros((2, 2, 7), np.float32)}, "the model wants"),
        ({"input": np.zeros((0, 3, 576), np.float32)}, "no samples"),
    ],
)
def test_data_that_does_not_fit_is_refused(detector: Model, arrays: Arrays, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_sequences("d.npz", detector, STATE, base=tmp_path)


def test_a_state_of_unknown_length_needs_a_start(tmp_path: Path) -> None:
    made = running_sum(tmp_path, ["n", "k"], ["n", "k"])
    np.savez(tmp_path / "d.npz", x=np.ones((2, 4, 3), np.float32))
    with pytest.raises(UsageError, match="the lengths of the state 's' are not known") as caught:
        open_sequences("d.npz", made, {"s": "z"}, base=tmp_path)
    assert "an array 's'" in caught.value.hint
