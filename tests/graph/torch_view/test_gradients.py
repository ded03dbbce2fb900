"""Gradients of every differentiable operator against finite differences, on the inputs of the backend's cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from backend_cases import cases, operators, tensor
from onnx_models import model, value
from trtcompress_graph.torch_view import OPS, to_torch

ALONE: dict[str, str] = {
    "Scatter": "ScatterElements under its old name, opset 9 alone",
    "SimplifiedLayerNormalization": "RMSNormalization under its old name",
    "GlobalLpPool": "the suite has no case: test_operators_without_cases",
    "Cast": "the suite's cases change the width: test_operators_without_cases",
    "CastLike": "the suite's cases change the width: test_operators_without_cases",
    "Trilu": "the suite's cases hold integers: test_operators_without_cases",
    "Scan": "the suite's cases take sequences of states: test_control",
    "Dropout": "random in training, the identity else: test_operators_without_cases",
    "Constant": "takes no inputs",
    "If": "the suite's case takes no floats: test_control",
    "Loop": "the suite's cases take no floats that are used: test_control",
    "DequantizeLinear": "takes integers; its gradients are those of fake quantization: test_quantized",
    "SequenceAt": "the suite has no case of it alone: test_operators_without_cases",
    "SequenceConstruct": "the suite has no case of it alone: test_operators_without_cases",
    "SequenceErase": "the suite has no case of it alone: test_operators_without_cases",
    "SequenceInsert": "the suite's cases build it from integers",
    "ConcatFromSequence": "the suite has no case of it alone: test_operators_without_cases",
    "SplitToSequence": "returns a list: test_operators_without_cases",
    "ArrayFeatureExtractor": "the suite's case holds integers",
    "Upsample": "is Resize under its old name",
}
"""Operators that have no case with floats of their own."""


def small_case(operator: tuple[str, str]) -> Any:
    """The case of fewest elements that holds this operator alone and takes floats."""
    found = [
        case
        for case in cases().values()
        if operators(case.model) == {operator} and "dropout" not in case.name and _floats(case)
    ]
    return min(found, key=lambda case: (sum(tensor(x).numel() for x in case.data_sets[0][0]), case.name), default=None)


def _floats(case: Any) -> bool:
    given = case.data_sets[0][0]
    if not all(hasattr(x, "shape") for x in given):
        return False
    kinds = [tensor(x) for x in given if x.dtype.kind in "fiub"]
    return any(t.dtype in (torch.float32, torch.float64) and t.numel() > 0 for t in kinds) and len(kinds) == len(given)


def differentiable() -> list[tuple[str, str]]:
    return sorted(
        key for key, entry in OPS.items() if entry.differentiable and key[1] not in ALONE and not entry.domain
    )


@pytest.mark.parametrize("operator", differentiable(), ids=lambda key: key[1])
def test_gradients(operator: tuple[str, str]) -> None:
    case = small_case(operator)
    assert case is not None, f"no case for {operator[1]}: say in ALONE where its gradients are checked"
    entry, factor = OPS[operator], 1.03 if operator[1] == "Acosh" else 0.97
    check(to_torch(case.model), [tensor(x) for x in case.data_sets[0][0]], factor, entry.buffers)


def check(
    module: Callable[..., Any], inputs: list[Tensor], factor: float = 0.97, fixed: frozenset[int] = frozenset()
) -> None:
    """Gradients of all float outputs by the float inputs that are not fixed, in 64 bits, a little off the kinks."""
    generator = torch.Generator().manual_seed(0)
    given = [
        (factor * x.double() + 3e-3 * torch.rand(x.shape, generator=generator, dtype=torch.float64)).requires_grad_(
            place not in fixed
        )
        if x.dtype in (torch.float32, torch.float64)
        else x
        for place, x in enumerate(inputs)
    ]

    def floats(*args: Tensor) -> tuple[Tensor, ...]:
        made = module(*args)
        parts = made if isinstance(made, (tuple, list)) else (made,)
        return tuple(p for p in parts if isinstance(p, Tensor) and p.is_floating_point())

    torch.manual_seed(0)
    assert torch.autograd.gradcheck(floats, given, eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)


NODES = {
    "GlobalLpPool": [helper.make_node("GlobalLpPool", ["x"], ["y"], p=3)],
    "Cast": [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)],
    "CastLike": [helper.make_node("CastLike", ["x", "k"], ["y"])],
    "Trilu": [helper.make_node("Trilu", ["x"], ["y"], upper=0)],
    "Dropout": [helper.make_node("Dropout", ["x"], ["y"])],
    "Sequence": [
        helper.make_node("SequenceConstruct", ["x", "x"], ["s"]),
        helper.make_node("SequenceErase", ["s"], ["fewer"]),
        helper.make_node("SequenceInsert", ["fewer", "x"], ["more"]),
        helper.make_node("SequenceAt", ["more", "zero"], ["y"]),
    ],
    "Split": [
        helper.make_node("SplitToSequence", ["x"], ["s"], axis=3),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=1),
    ],
}


@pytest.mark.parametrize("name", NODES)
def test_operators_without_cases(name: str) -> None:
    weights = {"k": np.zeros((), np.float64), "zero": np.array(0)}
    proto = model(NODES[name], [value("x", [1, 2, 3, 4])], [value("y", None)], weights, opset=20)
    x = torch.rand(1, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    check(to_torch(proto), [x])
