"""Equalization and rounding in a build and as commands: off, on, and as it is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from command_line import done, trtcompress
from float_graphs import Net, images, residual_net
from small_builds import Small, answers, small_classifier
from trtcompress.held_back import Parted, held_back
from trtcompress.output_error import compared_tensors, output_error
from trtcompress.trials import Trial
from trtcompress.trying import GAIN, UNMEASURED, _best, best_ranges, best_weights, rounded_model
from trtcompress_calibration.collect import calibrate, measure
from trtcompress_calibration.methods import METHODS
from trtcompress_calibration.precision import plan_precision
from trtcompress_engines.encodings import encodings
from trtcompress_graph.errors import UsageError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import read_ranges

BUILD = ("--target", "cpu:int8", "--set", "measure.seconds=0.01", "--set", "gates.min_cosine=0.5")
AUTO = ("quantize.equalize=auto", "quantize.rounding=auto", "quantize.correct_bias=auto")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    """A classifier whose channels are very unlike."""
    small = small_classifier(tmp_path_factory.mktemp("small"), samples=32)
    model = onnx.load(small.model)
    factors = np.exp(np.random.default_rng(0).normal(size=16) * 1.5).astype(np.float32)
    for tensor in model.graph.initializer:
        if tensor.name in ("conv0.weight", "conv0.bias"):
            values = numpy_helper.to_array(tensor)
            spread = values * factors.reshape((-1,) + (1,) * (values.ndim - 1))
            tensor.CopyFrom(numpy_helper.from_array(spread, tensor.name))
    onnx.save(model, small.model)
    return small


def built(small: Small, tmp_path: Path, *settings: str) -> dict[str, Any]:
    sets = [part for setting in settings for part in ("--set", setting)]
    ran = trtcompress(
        *("build", str(small.model), "--data", str(small.data), "--store", str(tmp_path / "store")),
        *("--out", str(tmp_path / "out"), *BUILD, *sets),
    )
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads((tmp_path / "out/small/report.json").read_text())
    return found


def test_a_build_turns_on_what_helps_and_tells(small, tmp_path):
    report = built(small, tmp_path, *AUTO)
    equalized, rounded = report["tried"]
    assert [equalized["what"], rounded["what"]] == ["equalized", "rounded"]
    assert [t["what"] for t in equalized["trials"]] == ["off", "cross-layer", "smooth"]
    assert len(rounded["trials"]) == 4
    for one in (equalized, rounded):
        errors = {t["what"]: t["error"] for t in one["trials"]}
        first = next(iter(errors.values()))
        assert errors[one["chosen"]] == min(errors.values()) or min(errors.values()) >= GAIN * first
    assert equalized["chosen"] != "off"
    folder = tmp_path / "out/small/models"
    assert json.loads((folder / "equalized/trials.json").read_text())["chosen"] == equalized["chosen"]
    assert "## What was tried" in (tmp_path / "out/small/report.md").read_text()
    x = small.samples["x"]
    exact, same = answers(small.model, x=x), answers(folder / "equalized/model.onnx", x=x)
    assert np.abs(exact - same).max() <= 1e-5 * np.abs(exact).max()


def test_a_build_tells_which_method_of_the_ranges_was_taken(small, tmp_path):
    (tried,) = built(small, tmp_path, "quantize.method=auto")["tried"]
    assert (tried["what"], tried["encoding"]) == ("ranges", "")
    errors = {t["what"]: t["error"] for t in tried["trials"]}
    assert errors.keys() == set(METHODS)
    assert errors[tried["chosen"]] == min(errors.values())
    folder = tmp_path / "out/small"
    told = json.loads((folder / "trials.json").read_text())
    assert told == {"chosen": tried["chosen"], "trials": tried["trials"]}
    assert read_ranges(folder / "ranges.json").method == tried["chosen"]
    assert f"| ranges | all | {tried['chosen']} | entropy:" in (folder / "report.md").read_text()
    again = built(small, tmp_path, "quantize.method=auto", "package=[]")
    assert again["tried"] == [tried]
    assert all(stage["reused"] for stage in again["stages"] if stage["stage"] == "calibrate")


def test_switches_of_their_own(small, tmp_path):
    report = built(small, tmp_path, "quantize.equalize=smooth", "quantize.correct_bias=true")
    assert [(t["chosen"], t["trials"]) for t in report["tried"]] == [
        ("smooth", []),
        ("nearest with bias correction", []),
    ]
    stages = [stage["stage"] for stage in built(small, tmp_path)["stages"]]
    assert "equalize" not in stages
    assert "round" not in stages


def test_commands(small, tmp_path):
    def run(*argv: str) -> str:
        ran = trtcompress(*argv, cwd=tmp_path)
        assert ran.code == 0, ran.err
        return ran.err

    data = ("--data", str(small.data))
    told = run("equalize", str(small.model), *data, "-o", "e.onnx")
    assert "off: error" in told
    assert "equalized: " in told
    run("calibrate", "e.onnx", *data, "-o", "r.json")
    run("quantize", "e.onnx", "--ranges", "r.json", "-o", "q.onnx")
    told = run("quantize", "e.onnx", "--ranges", "r.json", "--rounding", "auto", *data, "-o", "a.onnx")
    assert "rounding: second-order" in told
    model = read_model(small.model)
    samples = images(16, seed=5)
    errors = [output_error(model, read_model(tmp_path / f"{name}.onnx"), samples, ["logits"]) for name in "qa"]
    assert errors[1] < errors[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "e.onnx", "q.onnx", "r.json"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--rounding", "second-order"), "give --data"),
        (("--correct-bias", "true"), "give --data"),
        (("--weights", "auto"), "give --data"),
        (("--weights", "mse", "--target", "cpu:float"), "holds no INT8 activations"),
        (("--data", "d.npz"), "--data needs --max-drop, --weights auto, --rounding or --correct-bias"),
    ],
)
def test_commands_refuse(small, tmp_path, options, why):
    ran = trtcompress("quantize", str(small.model), *options, "-o", str(tmp_path / "q.onnx"))
    assert ran.code == 2
    assert why in ran.err


def test_weights_reach_as_far_as_asked(small, tmp_path):
    def scales(graph: Path) -> dict[str, np.ndarray[Any, Any]]:
        held = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(graph).graph.initializer}
        return {name: held[name] for name in held if name.endswith("weight_scale")}

    found = {}
    for way in ("minmax", "mse", "auto"):
        built(small, tmp_path, f"quantize.weights={way}")
        found[way] = scales(next((tmp_path / "out/small/models").glob("cpu-int8*/model.onnx")))
    assert all((found["mse"][name] <= found["minmax"][name]).all() for name in found["mse"])
    assert any((found["mse"][name] < found["minmax"][name]).any() for name in found["mse"])
    told = json.loads(next((tmp_path / "out/small/models").glob("cpu-int8*/trials.json")).read_text())
    assert [trial["what"] for trial in told["trials"]] == ["minmax", "mse"]
    chosen = found[told["chosen"]]
    assert all(np.array_equal(chosen[name], found["auto"][name]) for name in chosen)


def test_weights_as_it_is_measured_by_the_command(small, tmp_path):
    files = ("--ranges", "r.json", "-o", "q.onnx")
    for argv in (
        ("calibrate", str(small.model), "--data", str(small.data), "-o", "r.json"),
        ("quantize", str(small.model), *files, "--weights", "auto", "--data", str(small.data)),
    ):
        ran = trtcompress(*argv, cwd=tmp_path)
        assert ran.code == 0, ran.err
    assert "weights by minmax: error" in ran.err
    assert "weights by mse: error" in ran.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.onnx", "r.json"]


def test_what_is_held_back():
    samples = images(200, (1, 1, 1))
    rest, back = held_back(samples)
    assert (len(rest), len(back)) == (168, 32)
    assert not {id(s) for s in rest} & {id(s) for s in back}
    assert held_back(samples[:3]) == (tuple(samples[:3]), tuple(samples[:3]))


@pytest.mark.parametrize("count", [0, 3, 4, 9, 200])
def test_samples_that_come_one_by_one_are_parted_alike(count: int) -> None:
    samples = images(count)
    parted = Parted(iter(samples))
    rest = [*parted]
    assert (tuple(rest), tuple(parted.back or parted.first)) == held_back(samples)


def test_what_does_not_clearly_help_stays_off():
    assert _best([Trial("off", 1.0), Trial("on", 0.995)]) == "off"
    assert _best([Trial("off", 1.0), Trial("on", 0.9)]) == "on"
    assert _best([Trial("off", float("inf")), Trial("on", 0.9)]) == "on"


@pytest.mark.parametrize("name", ["cpu-int8", "trt-int8"])
def test_the_method_of_the_least_error_is_taken(tmp_path: Path, name: str) -> None:
    encoding = encodings()[name]
    model = residual_net(tmp_path / "net.onnx")
    samples = images(24)
    samples[5].inputs["x"][0, 0, 0, 0] = 300.0  # type: ignore[index]
    ranges, trials = best_ranges(model, samples, encoding=encoding)
    errors = {trial.what: trial.error for trial in trials}
    assert errors.keys() == set(METHODS)
    assert errors[ranges.method] == min(errors.values())
    assert errors["minmax"] > 2 * errors[ranges.method]
    assert ranges == calibrate(model, samples, method=ranges.method)


def test_a_method_is_measured_for_int8_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no INT8"):
        best_ranges(residual_net(tmp_path / "net.onnx"), images(4), encoding=encodings()["cpu-fp32"])


def test_what_was_read_apart_is_added_up_to_the_last_bit(tmp_path: Path) -> None:
    model, samples = residual_net(tmp_path / "net.onnx"), images(13)
    parts = [measure(model, samples[start::3], batch_size=1 + start) for start in range(3)]
    whole = parts[2] + parts[0] + parts[1]
    for method in METHODS:
        assert whole.ranges(method) == calibrate(model, samples, method=method)


def _selecting(path: Path, op: str) -> Model:
    """A product whose outputs alone are left whose values are positive, or the place of the greatest."""
    net = Net()
    net.product("Gemm", "x", "fc", 256, 256)
    if op == "ArgMax":
        net.node("Cast", [net.node("ArgMax", ["fc"], "place", axis=1)], "y", to=1)
    else:
        flat = net.node("Reshape", ["fc", net.constant("flat", [-1], np.int64)], "values")
        net.node("Compress", [flat, net.node("Greater", [flat, net.constant("zero", 0)], "positive")], "y", axis=0)
    return net.save(path, {"x": ("batch", 256)}, {"y": ("any", 1) if op == "ArgMax" else ("any",)})


@pytest.mark.parametrize("op", ["ArgMax", "Compress"])
def test_outputs_that_jump_are_measured_before_they_do(tmp_path: Path, op: str) -> None:
    model, samples = _selecting(tmp_path / "m.onnx", op), images(16, (256,))
    assert compared_tensors(model) == (("values",) if op == "Compress" else ("fc",))
    ranges, trials = best_ranges(model, samples, encoding=encodings()["cpu-int8"])
    errors = {trial.what: trial.error for trial in trials}
    assert all(0 < error < 0.1 for error in errors.values())
    assert errors[ranges.method] == min(errors.values())


def test_another_shape_is_no_agreement(tmp_path: Path) -> None:
    wide, narrow = Net(), Net()
    wide.node("Identity", ["x"], "y")
    narrow.node("ReduceMax", ["x", narrow.constant("axes", [1], np.int64)], "y")
    models = [
        net.save(tmp_path / f"{i}.onnx", {"x": ("n", 8)}, {"y": ("n", "m")}) for i, net in enumerate((wide, narrow))
    ]
    assert output_error(*models, images(4, (8,)), ["y"]) == float("inf")
    assert output_error(models[0], models[0], images(4, (8,)), ["y"]) == 0


def test_where_nothing_can_be_measured_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net = Net()
    net.node("TopK", ["x", net.constant("k", [8], np.int64)], "top")
    net.nodes[-1].output.append("places")
    net.product("Gemm", "top", "y", 8, 512)
    model, samples = net.save(tmp_path / "m.onnx", {"x": ("n", 32)}, {"y": ("n", 512)}), images(8, (32,))
    encoding = encodings()["cpu-int8"]
    assert compared_tensors(model) == ()
    ranges, trials = best_ranges(model, samples, encoding=encoding)
    assert (ranges, trials) == (calibrate(model, samples, method=UNMEASURED), ())
    assert "nothing can be measured" in caplog.text
    plan = plan_precision(model, ranges, encoding)
    weights = best_weights(model, ranges, plan, encoding, samples, tmp_path / "w.onnx")
    assert (weights.chosen, weights.trials) == ("minmax", ())
    rounded = rounded_model(
        *(model, weights, samples, tmp_path / "r.onnx"), rounding="auto", correct_bias=None, encoding=encoding
    )
    assert (rounded.chosen, rounded.trials) == ("nearest", ())
    assert len(caplog.records) == 3


@pytest.mark.parametrize("how", ["auto", "cross-layer", "smooth"])
def test_where_nothing_can_be_equalized_that_is_said(tmp_path: Path, how: str) -> None:
    net = Net()
    net.node("Relu", [net.product("MatMul", "x", "y", 64, 32)], "z")
    net.save(tmp_path / "m.onnx", {"x": ("batch", 64)}, {"z": ("batch", 32)})
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32))
    ran = done("equalize", "m.onnx", "--data", "d.npz", "--how", how, "-o", "e.onnx", cwd=tmp_path)
    assert "nothing could be equalized" in ran.err
    assert "equalized: " not in ran.err
