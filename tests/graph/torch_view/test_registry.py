"""The registry of operators, operators of users, and what is said of those that are missing."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor

from onnx_models import model, value
from trtcompress_graph.custom_ops import CUSTOM
from trtcompress_graph.errors import ModelError, OperatorError
from trtcompress_graph.torch_view import OPS, op, to_torch


@pytest.fixture
def twice() -> Iterator[None]:
    @op("Twice", domain="com.example")
    def twice(x: Tensor, /, *, times: int = 2) -> Tensor:
        return x * times

    yield
    del OPS["com.example", "Twice"]
    CUSTOM.discard(("com.example", "Twice"))


def custom(**attributes: object) -> object:
    node = helper.make_node("Twice", ["x"], ["y"], name="my_node", domain="com.example", **attributes)
    proto = model([node], [value("x", [2])], [value("y", [2])], {}, opset=20)
    proto.opset_import.append(helper.make_opsetid("com.example", 3))
    return proto


@pytest.mark.usefixtures("twice")
def test_an_operator_of_ones_own_comes_from_a_file_once_it_is_registered(tmp_path: Path) -> None:
    onnx.save(custom(times=3), tmp_path / "m.onnx")
    x = torch.tensor([1.0, -2.0])
    assert torch.equal(to_torch(tmp_path / "m.onnx")(x), 3 * x)


def test_a_file_with_an_unknown_operator_says_how_to_register_it(tmp_path: Path) -> None:
    onnx.save(custom(), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="register"):
        to_torch(tmp_path / "m.onnx")


def test_a_missing_operator_is_named_with_its_node_and_what_to_do() -> None:
    with pytest.raises(OperatorError) as caught:
        to_torch(custom())
    told = str(caught.value)
    for part in ("Twice", "com.example", "opset 3", "my_node", "simplify", "another opset", "torch_view.op("):
        assert part in told, part
    assert isinstance(caught.value, ModelError)
    assert caught.value.exit_code == 3


@pytest.mark.usefixtures("twice")
def test_users_register_operators() -> None:
    assert torch.equal(to_torch(custom(times=3))(torch.ones(2)), torch.full((2,), 3.0))


@pytest.mark.usefixtures("twice")
def test_an_attribute_that_an_operator_does_not_take_is_named() -> None:
    with pytest.raises(OperatorError, match="not with 'strange'"):
        to_torch(custom(strange=1))


@pytest.mark.usefixtures("twice")
def test_an_operator_is_registered_once() -> None:
    with pytest.raises(ValueError, match="is registered already"):
        op("Twice", domain="com.example")(torch.relu)


def test_all_registered_operators_say_what_they_do() -> None:
    ours = {name: entry.run for (_, name), entry in OPS.items() if entry.run.__module__.startswith("trtcompress")}
    silent = [name for name, run in ours.items() if not (run.__doc__ or "").strip()]
    assert len(ours) > 150
    assert not silent


def test_the_arithmetic_of_shapes_takes_the_attributes_of_its_operator() -> None:
    for entry in OPS.values():
        if entry.sizes is None or entry.attributes is None:
            continue
        taken = inspect.signature(entry.sizes).parameters.values()
        names = {p.name for p in taken if p.kind is p.KEYWORD_ONLY}
        assert any(p.kind is p.VAR_KEYWORD for p in taken) or entry.attributes <= names, entry.name


def test_arithmetic_of_shapes_that_fails_names_its_node() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["lengths"]),
        helper.make_node("Add", ["lengths", "three"], ["y"], name="my_sum"),
    ]
    three = {"three": np.array([1, 2, 3])}
    proto = model(nodes, [value("x", [2, 2])], [value("y", None, onnx.TensorProto.INT64)], three)
    with pytest.raises(OperatorError, match="my_sum"):
        to_torch(proto)


def test_the_package_costs_nothing_until_it_is_used() -> None:
    code = "import sys, trtcompress, trtcompress_graph; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
