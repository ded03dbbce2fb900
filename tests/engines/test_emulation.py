"""Float16 graphs are computed in float16, whatever the CPU's kernels take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from trtcompress_engines.backends.onnxruntime import open_graph
from trtcompress_engines.emulation import rounding_float16

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def save(path: Path, nodes, constants, output=("y", FLOAT), given=("x", FLOAT), shape=(4,)) -> Path:
    graph = helper.make_graph(
        nodes,
        "halves",
        [helper.make_tensor_value_info(*given, shape)],
        [helper.make_tensor_value_info(*output, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def chain(path: Path, steps, **options) -> Path:
    """x -> float16 -> each (operator, number) in turn -> float32."""
    nodes = [helper.make_node("Cast", ["x"], ["t0"], to=HALF)]
    constants = {}
    for index, (op, number) in enumerate(steps):
        constants[f"c{index}"] = np.float16(number)
        nodes.append(helper.make_node(op, [f"t{index}", f"c{index}"], [f"t{index + 1}"]))
    nodes.append(helper.make_node("Cast", [f"t{len(steps)}"], ["y"], to=FLOAT))
    return save(path, nodes, constants, **options)


def emulated(path: Path, x: np.ndarray) -> np.ndarray:
    with open_graph(path, emulate=True) as runner:
        return runner.infer({"x": x})["y"]


def test_what_overflows_on_the_device_overflows_here(tmp_path: Path):
    path = chain(tmp_path / "m.onnx", [("Mul", 300), ("Mul", 300), ("Div", 300), ("Div", 300)])
    x = np.array([0.5, 1.5, -1.5, 0], np.float32)
    assert emulated(path, x).tolist() == [0.5, np.inf, -np.inf, 0]
    with open_graph(path) as wide:  # ONNX Runtime alone would call this graph perfect
        assert np.isfinite(wide.infer({"x": x})["y"]).all()


NUMPY = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Max": np.maximum}


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(sorted(NUMPY)), st.floats(0.0625, 512, width=16)), min_size=1, max_size=6),
    x=st.lists(st.floats(-1000, 1000, width=32), min_size=4, max_size=4),
)
def test_every_result_is_rounded_as_numpy_rounds_it(tmp_path_factory, steps, x):
    values = np.array(x, np.float32)
    expected = values.astype(np.float16)
    with np.errstate(all="ignore"):
        for op, number in steps:
            expected = NUMPY[op](expected, np.float16(number))
    given = emulated(chain(tmp_path_factory.mktemp("half") / "m.onnx", steps), values)
    np.testing.assert_array_equal(given, expected.astype(np.float32))


def test_products_are_rounded_once_behind_their_sum(tmp_path: Path):
    weight = np.full((4, 1), 2.0**-11 + 1, np.float16)
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=HALF),
        helper.make_node("MatMul", ["h", "w"], ["p"]),
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("Cast", ["r"], ["y"], to=FLOAT),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"w": weight}, shape=(1, 4))
    x = np.array([[1, 1.0009765625, 3, 2]], np.float32)
    expected = (x.astype(np.float64) @ weight.astype(np.float64)).astype(np.float16)
    assert emulated(path, x).tolist() == expected.tolist()


@pytest.mark.parametrize("op", ["Add", "Max"])
def test_half_inputs_outputs_and_subgraphs_keep_names_and_types(tmp_path: Path, op: str):
    branch = helper.make_graph(
        [helper.make_node("Cast", ["s"], ["b"], to=FLOAT)], "then", [], [helper.make_tensor_value_info("b", FLOAT, [4])]
    )
    nodes = [
        helper.make_node(op, ["x", "c"], ["s"]),
        helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"c": np.float16(2048), "yes": np.bool_(True)}, ("s", HALF), ("x", HALF))
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("z", FLOAT, [4]))
    onnx.save(model, path)
    x = np.array([1, 2, 3, 4096], np.float16)
    expected = NUMPY[op](x, np.float16(2048))
    with open_graph(path, emulate=True) as runner:
        found = runner.infer({"x": x})
    assert found["s"].dtype == np.float16
    assert found["s"].tolist() == found["z"].tolist() == expected.tolist()


def test_a_graph_without_float16_stays_as_it_is(tmp_path: Path):
    nodes = [helper.make_node("Add", ["x", "c"], ["y"])]
    assert rounding_float16(save(tmp_path / "m.onnx", nodes, {"c": np.float32(1)})) is None


def test_weights_in_external_data_are_found(tmp_path: Path):
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=HALF),
        helper.make_node("Mul", ["h", "w"], ["p"]),
        helper.make_node("Cast", ["p"], ["y"], to=FLOAT),
    ]
    weight = np.linspace(1, 2, 4096, dtype=np.float16)
    path = save(tmp_path / "m.onnx", nodes, {"w": weight}, shape=(4096,))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=0)
    x = np.full(4096, 1.5, np.float32)
    assert emulated(path, x).tolist() == (weight * np.float16(1.5)).tolist()
