"""What is said of poor calibration data, and of graphs that INT8 does nothing for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from float_graphs import IMAGE, Net, images, measured, residual_net
from trtcompress_calibration.data import Sample, open_dataset
from trtcompress_calibration.doubts import altered, doubts, nothing_quantized
from trtcompress_calibration.methods import METHODS
from trtcompress_calibration.precision import plan_precision
from trtcompress_engines.encodings import encodings
from trtcompress_graph.encoding import PrecisionPlan
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import VERSION, Ranges, TensorRange


def test_few_samples(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "m.onnx")
    assert doubts(measured(model, images(16)), model.inputs) == ()
    (said,) = doubts(measured(model, images(15)), model.inputs)
    assert "15 samples" in said
    (said,) = doubts(measured(model, images(1)), model.inputs)
    assert "1 sample:" in said


def test_an_input_that_never_changes(tmp_path: Path) -> None:
    net = Net()
    net.node("Add", [net.conv("x", "c", 3, 3), "scale"], "y")
    model = net.save(tmp_path / "m.onnx", {**IMAGE, "scale": IMAGE["x"]}, {"y": IMAGE["x"]})
    zeros = np.zeros((1, 3, 16, 16), np.float32)
    samples = [Sample({**sample.inputs, "scale": zeros}) for sample in images(16)]
    (said,) = doubts(measured(model, samples), model.inputs)
    assert said.startswith("the input 'scale' is 0 everywhere")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [1.0, 0.1, 10.0])
def test_a_threshold_that_was_edited_is_told(method: str, factor: float, tmp_path: Path) -> None:
    model = residual_net(tmp_path / "m.onnx")
    ranges = measured(model, images(16), method)
    assert altered(ranges) == ()
    name, held = next((n, r) for n, r in ranges.tensors.items() if r.threshold and r.max > 0)
    edited = replace(held, threshold=held.amax * factor, clipped=0.0)
    told = altered(replace(ranges, tensors={**ranges.tensors, name: edited}))
    assert told == () if factor == 1 else f"the threshold of '{name}' is not what its samples give" in told[0]


@pytest.mark.parametrize(
    ("method", "threshold", "clipped", "told"),
    [
        ("entropy", 1 / 16, 0.005, False),
        ("entropy", 1e-6, 0.005, True),
        ("mse", 0.03, 0.2, True),
        ("minmax", 0.5, 0.1, True),
        ("percentile", 0.01, 1e-4, False),
        ("percentile", 0.01, 0.3, True),
        ("by hand", 1.0, 0.1, True),
        ("by hand", 0.01, 0.1, False),
    ],
)
def test_a_threshold_that_does_not_fit_what_is_clipped_is_told(
    method: str, threshold: float, clipped: float, told: bool
) -> None:
    held = TensorRange(-3.0, 8.0, 8 * threshold, clipped, method, 64)
    assert bool(altered(Ranges(VERSION, "11", method, 64, {"x": held}))) == told


def plan(model: Model, samples: list[Sample], name: str) -> tuple[PrecisionPlan, str]:
    encoding = encodings()[name]
    made = plan_precision(model, measured(model, samples), encoding)
    return made, nothing_quantized(made, encoding)


@pytest.mark.parametrize("name", ["cpu-int8", "trt-int8"])
def test_a_float16_model_has_nothing_to_quantize(name: str, tmp_path: Path) -> None:
    w = numpy_helper.from_array(np.eye(4, dtype=np.float16), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["batch", 4])],
        [w],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), tmp_path / "h.onnx")
    made, said = plan(read_model(tmp_path / "h.onnx"), [Sample({"x": np.ones((1, 4), np.float16)})], name)
    assert made.quantized == 0
    assert "nothing could be quantized: it works on float16" in said


def test_a_graph_without_weights_has_nothing_to_quantize(tmp_path: Path) -> None:
    net = Net()
    net.node("Mul", [net.node("Sigmoid", ["x"], "s"), "x"], "y")
    model = net.save(tmp_path / "m.onnx", IMAGE, {"y": IMAGE["x"]})
    made, said = plan(model, images(2), "trt-int8")
    assert made.quantized == 0
    assert "no INT8 kernel for" in said


def test_the_reason_of_nodes_with_weights_is_told_before_that_of_the_many(tmp_path: Path) -> None:
    net = Net()
    x = net.node("Concat", [net.product("MatMul", "x", "y", 8, 4), "z"], "c", axis=1)
    net.node("Concat", [net.node("Mul", [net.node("Add", [x, x], "a"), x], "b"), x], "d", axis=1)
    model = net.save(tmp_path / "m.onnx", {"x": ("batch", 8), "z": ("batch", 4)}, {"d": ("batch", 16)})
    rng = np.random.default_rng(0)
    samples = [
        Sample({name: rng.normal(size=(1, n)).astype(np.float32) for name, n in (("x", 8), ("z", 4))}) for _ in range(4)
    ]
    made, said = plan(model, samples, "cpu-int8")
    assert made.quantized == 0
    assert "its weights are too few for INT8 to pay" in said
    assert said.endswith("(1 of 1 nodes with weights)")


def test_nothing_is_said_where_something_is_quantized_or_nothing_should_be(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "m.onnx")
    made, said = plan(model, images(2), "cpu-int8")
    assert made.quantized > 0
    assert not said
    assert not plan(model, images(2), "trt-fp16")[1]


@pytest.mark.parametrize(("asked", "told"), [(None, 5), (3, 3), (128, 5)])
def test_how_many_samples_there_are_is_known_of_files(asked: int | None, told: int, tmp_path: Path) -> None:
    model = residual_net(tmp_path / "m.onnx")
    np.savez(tmp_path / "s.npz", x=np.zeros((5, 3, 16, 16), np.float32))
    assert open_dataset("s.npz", model.inputs, samples=asked, base=tmp_path).total == told
    for folder in ("flat", "classes/a", "classes/b"):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(5):
        for folder in ("flat", f"classes/{'ab'[i % 2]}"):
            Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / folder / f"{i}.png")
    for folder in ("flat", "classes"):
        assert open_dataset(folder, model.inputs, samples=asked, base=tmp_path).total == told


def test_how_many_samples_several_files_hold_is_not_known(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "m.onnx")
    for i in range(2):
        np.savez(tmp_path / f"{i}.npz", x=np.zeros((5, 3, 16, 16), np.float32))
    assert open_dataset(tmp_path, model.inputs, base=tmp_path).total is None
