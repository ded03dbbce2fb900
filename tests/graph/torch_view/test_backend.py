"""Every case of ONNX's backend test suite of which the operators are registered, operator by operator."""

from __future__ import annotations

import fnmatch

import pytest
import torch

from backend_cases import by_operator, cases, differences, tensor
from trtcompress_graph.torch_view import OPS, to_torch

SKIPPED = {
    "*FLOAT4E2M1*": "PyTorch computes with no floats of four bits",
    "*float4e2m1*": "PyTorch computes with no floats of four bits",
    "*E8M0*": "PyTorch computes with no floats that are exponents alone",
    "test_equal_string*": "PyTorch has no tensors of text",
    "test_scan_sum": "opset 8: the oldest here is 9",
    "test_bernoulli*": "random: see test_random_numbers",
    "test_training_dropout*": "random: see test_dropout_in_training",
}


def wanted(name: str) -> bool:
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in SKIPPED)


@pytest.mark.parametrize("group", sorted(by_operator()))
def test_cases(group: str) -> None:
    wrong = [problem for name in by_operator()[group] if wanted(name) for problem in differences(name)]
    assert not wrong


def test_nothing_is_skipped_in_vain() -> None:
    names = [name for group in by_operator().values() for name in group]
    for pattern in SKIPPED:
        assert fnmatch.filter(names, pattern), pattern
    assert sum(wanted(name) for name in names) > 1700
    assert len(OPS) > 180


@pytest.mark.parametrize("name", ["test_bernoulli", "test_bernoulli_double", "test_bernoulli_seed"])
@pytest.mark.parametrize("kind", ["", "_expanded"])
def test_random_numbers(name: str, kind: str) -> None:
    case = cases()[name + kind]
    (inputs, (expected,)), *_ = case.data_sets
    module, chance = to_torch(case.model), torch.linspace(0, 1, 10).repeat(400)
    drawn = module(chance.to(tensor(inputs[0]).dtype))
    assert drawn.dtype == tensor(expected).dtype
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    shares = drawn.double().reshape(400, 10).mean(0)
    wanted = torch.linspace(0, 1, 10).double()  # ONNX's own function draws the other way round
    assert (shares - (1 - wanted if kind else wanted)).abs().max() < 0.12


@pytest.mark.parametrize("name", sorted(n for n in cases() if n.startswith("test_training_dropout")))
def test_dropout_in_training(name: str) -> None:
    case = cases()[name]
    (inputs, expected), *_ = case.data_sets
    x, ratio, training = (tensor(each) for each in inputs)
    module = to_torch(case.model)
    large = torch.ones(200, 50)
    made = module(large, ratio, training)
    y, *mask = made if isinstance(made, tuple) else (made,)
    kept = float((y != 0).float().mean())
    assert abs(kept - (1 - float(ratio))) < 0.03
    assert torch.allclose(y[y != 0], torch.tensor(1 / (1 - float(ratio)) if ratio < 1 else 0.0))
    assert len(mask) == len(expected) - 1
    assert all(torch.equal(m, y != 0) for m in mask if float(ratio) > 0)
    assert module(x, ratio, training.logical_not())[0].shape[-1:] == x.shape[-1:]
