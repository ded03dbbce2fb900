"""`auto` for models that remember: errors are those of whole sequences, each graph with the states that it made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assets import asset
from trtcompress.held_back import held_back
from trtcompress.output_error import compared_tensors, output_error
from trtcompress.trying import best_ranges
from trtcompress_calibration.batching import batches
from trtcompress_calibration.collect import measure
from trtcompress_calibration.methods import METHODS
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.stateful import Steps, open_sequences
from trtcompress_engines.backends.onnxruntime import open_graph
from trtcompress_engines.encodings import encodings
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.simplify import simplify


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Steps]:
    """silero-vad, and eight sequences of noise that swells and falls."""
    folder = tmp_path_factory.mktemp("vad")
    model = simplify(
        read_model(asset("silero-vad", "silero_vad_16k_op15.onnx")), folder / "vad.onnx", fix={"sr": 16000}
    )
    rng = np.random.default_rng(0)
    sounds = rng.standard_normal((8, 12, 576)) * rng.uniform(0, 0.3, (8, 12, 1))
    np.savez(folder / "data.npz", input=sounds.astype(np.float32))
    return model, Steps(open_sequences("data.npz", model, {"state": "stateN"}, base=folder), model)


def test_errors_are_of_sequences_with_the_states_of_each_graph(steps: tuple[Model, Steps], tmp_path: Path) -> None:
    model, data = steps
    encoding = encodings()["cpu-int8"]
    found, trials = best_ranges(model, data, encoding=encoding)
    assert [trial.what for trial in trials] == list(METHODS)
    assert found.method == min(trials, key=lambda trial: trial.error).what
    assert found.tensors == measure(model, data).ranges(found.method).tensors

    rest, back = held_back(tuple(data.sequences))
    assert (len(rest), len(back)) == (6, 2)
    ranges = measure(model, data.of(rest)).ranges("minmax")
    graph = quantize(model, ranges, plan_precision(model, ranges, encoding), encoding, tmp_path / "q.onnx")
    tensors = compared_tensors(model)
    of_minmax = next(trial.error for trial in trials if trial.what == "minmax")
    assert of_minmax == output_error(model, graph, back, tensors, data.fed)

    (both,) = batches(back, data.fed.inputs, 8)  # together: an LSTM's input is quantized as it comes, by the batch
    with open_graph(model.path, more=tensors) as exact, open_graph(graph.path, emulate=True, more=tensors) as tried:
        wanted, got = (data.fed.run(run.infer, both.inputs) for run in (exact, tried))
    errors = [np.square(got[name] - wanted[name]).mean() / wanted[name].var(dtype=np.float64) for name in tensors]
    assert of_minmax == pytest.approx(max(errors), rel=1e-5)
    assert of_minmax != pytest.approx(output_error(model, graph, data.of(back), tensors), rel=1e-3)
