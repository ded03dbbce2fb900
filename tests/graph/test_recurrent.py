from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_models import difference, model, run, save, value
from trtcompress_graph.load import read_model
from trtcompress_graph.simplify import simplify

STEPS, INPUTS, HIDDEN = 4, 3, 5
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(
    op: str, before: Sequence[onnx.NodeProto], states: Sequence[str], **constants: np.ndarray
) -> onnx.ModelProto:
    """One recurrent layer whose initial states are named; `before` makes them from the input and constants."""
    rng = np.random.default_rng(0)
    rows = GATES[op] * HIDDEN
    weights = {
        "W": rng.standard_normal((1, rows, INPUTS)).astype(np.float32),
        "R": rng.standard_normal((1, rows, HIDDEN)).astype(np.float32),
        "B": rng.standard_normal((1, 2 * rows)).astype(np.float32),
    }
    node = helper.make_node(op, ["x", "W", "R", "B", "", *states], ["y"], name="layer", hidden_size=HIDDEN)
    x, y = value("x", [STEPS, "batch", INPUTS]), value("y", [STEPS, 1, "batch", HIDDEN])
    return model([*before, node], [x], [y], weights | constants)


def expanded(number: float) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """A number, expanded to two layers of states and sliced for one, as exporters do."""
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], name="shape", start=1, end=2),
        helper.make_node("Concat", ["two", "batch", "hidden"], ["lengths"], name="join", axis=0),
        helper.make_node("Expand", ["number", "lengths"], ["all"], name="expand"),
        helper.make_node("Slice", ["all", "one", "two", "first"], ["state"], name="slice"),
    ]
    constants = {
        "number": np.array(number, np.float32),
        "one": np.array([1]),
        "two": np.array([2]),
        "first": np.array([0]),
        "hidden": np.array([HIDDEN]),
    }
    return nodes, constants


def simplified(proto: onnx.ModelProto, folder: Path) -> onnx.NodeProto:
    """The layer after simplification, which must answer as before."""
    path = save(proto, folder / "m.onnx")
    plain = simplify(read_model(path), folder / "plain.onnx")
    x = np.random.default_rng(1).standard_normal((STEPS, 2, INPUTS)).astype(np.float32)
    for a, b in zip(run(path, {"x": x}), run(plain.path, {"x": x}), strict=True):
        assert difference(a, b) <= 1e-6
    assert simplify(plain, folder / "again.onnx").digest == plain.digest
    return next(node for node in onnx.load(plain.path).graph.node if node.name == "layer")


@pytest.mark.parametrize("op", GATES)
def test_states_that_are_zero_are_left_out(op: str, tmp_path: Path) -> None:
    nodes, constants = expanded(0.0)
    states = ["state", "state"] if op == "LSTM" else ["state"]
    assert list(simplified(recurrent(op, nodes, states, **constants), tmp_path).input) == ["x", "W", "R", "B"]


@pytest.mark.parametrize("filled", [None, 0.0, -0.0])
def test_constant_of_shape_may_be_the_zero(filled: float | None, tmp_path: Path) -> None:
    nodes, constants = expanded(0.0)
    fill = {} if filled is None else {"value": numpy_helper.from_array(np.array([filled], np.float32))}
    nodes[2] = helper.make_node("ConstantOfShape", ["lengths"], ["all"], name="fill", **fill)
    del constants["number"]
    layer = simplified(recurrent("LSTM", nodes, ["state", "state"], **constants), tmp_path)
    assert list(layer.input) == ["x", "W", "R", "B"]


def test_a_state_that_is_not_zero_stays(tmp_path: Path) -> None:
    nodes, constants = expanded(0.5)
    layer = simplified(recurrent("GRU", nodes, ["state"], **constants), tmp_path)
    assert len(layer.input) == 6
    assert layer.input[5]


def test_only_the_zero_one_of_two_is_left_out(tmp_path: Path) -> None:
    nodes, constants = expanded(0.0)
    nodes += [
        helper.make_node("ReduceMean", ["x"], ["mean"], name="mean", axes=[0, 2], keepdims=1),
        helper.make_node("Expand", ["mean", "wide"], ["told"], name="widen"),
    ]
    constants["wide"] = np.array([1, 1, HIDDEN])
    layer = simplified(recurrent("LSTM", nodes, ["told", "state"], **constants), tmp_path)
    assert list(layer.input) == ["x", "W", "R", "B", "", "told"]


def test_a_state_that_the_input_makes_stays(tmp_path: Path) -> None:
    """Zero times the input is not zero where the input is infinite."""
    nodes, constants = expanded(0.0)
    nodes += [
        helper.make_node("ReduceMean", ["x"], ["mean"], name="mean", axes=[0, 2], keepdims=1),
        helper.make_node("Mul", ["state", "mean"], ["told"], name="times"),
    ]
    layer = simplified(recurrent("GRU", nodes, ["told"], **constants), tmp_path)
    assert layer.input[5]
