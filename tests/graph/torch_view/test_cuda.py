"""The torch view on an NVIDIA GPU: ONNX Runtime's numbers, the gradients of the CPU, and every operator."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

import zoo
from backend_cases import by_operator, cases, difference, tensor
from trtcompress_graph.model import Model
from trtcompress_graph.torch_view import to_torch
from trtcompress_graph.torch_view.ops import recurrent

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no GPU")

NETWORKS = (
    "resnet_bottleneck",
    "unet",
    "sampled",
    "lstm",
    "gru_both_ways",
    "torch_encoder",
    "swin",
    "bert",
    "mean_by_length",
    "group_norm",
    "loop",
)
NEAR = 1e-4
"""Of the greatest value of an output."""

SKIPPED: dict[str, str] = {
    "*FLOAT4E2M1*": "PyTorch computes with no floats of four bits",
    "*float4e2m1*": "PyTorch computes with no floats of four bits",
    "*E8M0*": "PyTorch computes with no floats that are exponents alone",
    "test_equal_string*": "PyTorch has no tensors of text",
    "test_scan_sum": "opset 8: the oldest here is 9",
    "test_bernoulli*": "random",
    "test_maxpool_2d_uint8*": "PyTorch pools no integers on a GPU",
    "test_top_k_uint64*": "PyTorch sorts no unsigned integers of 64 bits on a GPU",
    "test_training_dropout*": "random",
}
"""Cases of the backend's suite that are not run."""


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Products of convolutions in float32, for which PyTorch takes TF32 as it comes."""
    held = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = held


def feed_of(name: str) -> tuple[Model, dict[str, Any]]:
    model = zoo.model(name)
    feeds = zoo.feeds(name, zoo.shapes(name)[0])
    return model, {spec.name: feeds[spec.name] for spec in model.inputs}


def moved(given: Any, device: str) -> Any:
    return [moved(part, device) for part in given] if isinstance(given, (list, tuple)) else given.to(device)


def away(one: Any, other: Any) -> float:
    one, other = (np.asarray(x, np.float64) for x in (one, other))
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-20))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_numbers_of_onnx_runtime(name: str) -> None:
    model, feed = feed_of(name)
    expected = ort.InferenceSession(str(model.path), providers=["CPUExecutionProvider"]).run(None, feed)
    view = to_torch(model).cuda()
    with torch.no_grad():
        made = view(*[torch.from_numpy(np.array(value)).cuda() for value in feed.values()])
    results = made if isinstance(made, tuple) else (made,)
    assert all(result.device.type == "cuda" for result in results)
    assert max(away(result.cpu(), wanted) for result, wanted in zip(results, expected, strict=True)) < NEAR


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_the_cpu(name: str) -> None:
    model, feed = feed_of(name)
    gradients: list[dict[str, Tensor]] = []
    for device in ("cpu", "cuda"):
        view = to_torch(model).to(device)
        made = view(*[torch.from_numpy(np.array(value)).to(device) for value in feed.values()])
        results = [r for r in (made if isinstance(made, tuple) else (made,)) if r.requires_grad]
        torch.stack(
            [(result.float() / result.detach().abs().max()).square().mean() for result in results]
        ).sum().backward()
        gradients.append({n: p.grad.cpu() for n, p in view.named_parameters() if p.grad is not None})
    one, other = gradients
    assert one.keys() == other.keys()
    greatest = max(float(value.abs().max()) for value in one.values())
    wrong = {n: away(other[n], one[n]) for n in one if float(one[n].abs().max()) > 1e-4 * greatest}
    assert max(wrong.values()) < 1e-2
    assert float(np.median(list(wrong.values()))) < 1e-4


@pytest.mark.parametrize("op", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("layout", [0, 1])
def test_recurrent_layers_start_from_an_expanded_state(op: str, layout: int) -> None:
    """Of one sequence, repeated over a batch without a copy; cuDNN refuses states that are not contiguous."""
    gates, batch, steps, width, hidden = {"rnn": 1, "gru": 3, "lstm": 4}[op], 3, 5, 4, 6
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, gates * hidden, width), (2, gates * hidden, hidden), (2, 2 * gates * hidden)]
    weights = [torch.randn(*shape, generator=generator) for shape in shapes]
    x = torch.randn(*((batch, steps, width) if layout else (steps, batch, width)), generator=generator)
    first = [torch.randn(*((1, 2, hidden) if layout else (2, 1, hidden)), generator=generator)] * (1 + (op == "lstm"))
    extra = {"linear_before_reset": 1} if op == "gru" else {}
    made = []
    for device in ("cpu", "cuda"):
        states = [s.to(device).expand(*((batch, 2, hidden) if layout else (2, batch, hidden))) for s in first]
        given = [x.to(device), *(weight.to(device) for weight in weights), None, *states]
        made.append(getattr(recurrent, op)(*given, direction="bidirectional", layout=layout, **extra))
    assert max(away(other.cpu(), one) for one, other in zip(*made, strict=True)) < NEAR


def wanted(name: str) -> bool:
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in SKIPPED)


def differences(name: str) -> Iterator[str]:
    case = cases()[name]
    module = to_torch(case.model).cuda()
    for number, (inputs, expected) in enumerate(case.data_sets):
        with torch.no_grad():
            try:
                made = module(*[moved(tensor(given), "cuda") for given in inputs])
            except RuntimeError as error:
                yield f"{name}[{number}]: {str(error).splitlines()[0][:200]}"
                continue
        results = made if isinstance(made, tuple) else (made,)
        for right, got in zip(expected, results, strict=True):
            problem = difference(right, moved(got, "cpu"), max(case.rtol, 1e-4), max(case.atol, 1e-5))
            if problem:
                yield f"{name}[{number}]: {problem}"


@pytest.mark.parametrize("group", sorted(by_operator()))
def test_operators(group: str) -> None:
    assert not [problem for name in by_operator()[group] if wanted(name) for problem in differences(name)]
