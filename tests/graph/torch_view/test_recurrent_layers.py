"""RNN, GRU and LSTM in a view: PyTorch's kernels where they mean the same, and the steps wherever they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from onnx_models import model, value
from trtcompress_graph.torch_view import kernels, to_onnx, to_torch
from trtcompress_graph.torch_view.ops import recurrent

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STATES = {"RNN": 1, "GRU": 1, "LSTM": 2}
ACTIVATIONS = {"RNN": ("tanh",), "GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh")}
BATCH, STEPS, WIDTH, HIDDEN = 3, 5, 4, 6
DIRECTIONS = ("forward", "reverse", "bidirectional")


def layer(op: str, direction: str, *, layout: int = 0, bias: bool = True, states: bool = True) -> list[Tensor | None]:
    """The inputs of a layer in 64 bits, lengths left out."""
    ways = 2 if direction == "bidirectional" else 1
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    gates = GATES[op] * HIDDEN
    x = draw(BATCH, STEPS, WIDTH) if layout else draw(STEPS, BATCH, WIDTH)
    first = [draw(BATCH, ways, HIDDEN) if layout else draw(ways, BATCH, HIDDEN) for _ in range(STATES[op])]
    weights = [draw(ways, gates, WIDTH), draw(ways, gates, HIDDEN), draw(ways, 2 * gates) if bias else None]
    return [x, *weights, None, *(first if states else [None] * STATES[op])]


def outputs_and_gradients(op: str, given: list[Tensor | None], named: dict[str, Any]) -> tuple[Tensor, ...]:
    extra = {"linear_before_reset": 1} if op == "GRU" else {}
    outputs = getattr(recurrent, op.lower())(*given, **extra, **named)
    generator = torch.Generator().manual_seed(1)
    total = sum((y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum() for y in outputs)
    learned = [x for x in given if x is not None and x.requires_grad]
    return *outputs, *torch.autograd.grad(total, learned)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("whole", [False, True], ids=["weights", "all"])
def test_the_kernels_give_what_the_steps_give(
    op: str, direction: str, layout: int, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, named = layer(op, direction, layout=layout, bias=whole, states=whole), {"direction": direction}
    given[4] = torch.full((BATCH,), STEPS) if whole else None
    calls: list[str] = []
    inside = recurrent.kernel
    monkeypatch.setattr(recurrent, "kernel", lambda *args: (calls.append(op), inside(*args))[1])
    fast = outputs_and_gradients(op, given, {**named, "layout": layout})
    assert calls == [op]
    monkeypatch.setattr(recurrent, "fits", lambda *_: None)
    slow = outputs_and_gradients(op, given, {**named, "layout": layout})
    assert calls == [op]
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(fast, slow, strict=True))


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("layout", [0, 1])
def test_first_states_are_contiguous_where_they_are_expanded(
    op: str, layout: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, seen = layer(op, "bidirectional", layout=layout), []
    axis = 0 if layout else 1
    given[5:] = [state.narrow(axis, 0, 1).expand_as(state) for state in given[5:] if state is not None]
    run, order = kernels.KERNELS[ACTIVATIONS[op]]

    def spied(x: Tensor, first: Tensor | tuple[Tensor, ...], *more: Any) -> Any:
        seen.extend(state.is_contiguous() for state in ([first] if isinstance(first, Tensor) else first))
        return run(x, first, *more)

    monkeypatch.setitem(kernels.KERNELS, ACTIVATIONS[op], (spied, order))
    outputs_and_gradients(op, given, {"direction": "bidirectional", "layout": layout})
    assert seen == [True] * STATES[op]


OTHER: dict[str, dict[str, Any]] = {
    "clip": {"clip": 0.5},
    "activations": {"activations": ["Sigmoid", "Tanh", "Relu"]},
    "coupled": {"input_forget": 1},
}


@pytest.mark.parametrize("kind", [*OTHER, "peepholes", "lengths"])
def test_what_the_kernels_cannot_do_runs_step_by_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "kernel", lambda *_: pytest.fail("the kernel does not mean this"))
    given = layer("LSTM", "forward")
    if kind == "lengths":
        given[4] = torch.tensor([STEPS, 2, 1])
    if kind == "peepholes":
        given.append(torch.ones(1, 3 * HIDDEN, dtype=torch.float64))
    every, *_ = recurrent.lstm(*given, **OTHER.get(kind, {}))
    assert every.shape == (STEPS, 1, BATCH, HIDDEN)


def written(op: str) -> onnx.ModelProto:
    """A layer in both directions, of any batch."""
    weights = [x for x in layer(op, "bidirectional")[1:4] if x is not None]
    held = {name: x.detach().float().numpy() for name, x in zip("WRB", weights, strict=True)}
    extra = {"linear_before_reset": 1} if op == "GRU" else {}
    node = helper.make_node(op, ["x", *held], ["y", "last"], hidden_size=HIDDEN, direction="bidirectional", **extra)
    outputs = [value("y", [STEPS, 2, "batch", HIDDEN]), value("last", [2, "batch", HIDDEN])]
    return model([node], [value("x", [STEPS, "batch", WIDTH])], outputs, held)


@pytest.mark.parametrize("op", GATES)
def test_export_keeps_the_kernel_and_a_dynamic_batch(op: str) -> None:
    view, x = to_torch(written(op)), torch.randn(STEPS, 2, WIDTH)
    exported = torch.export.export(view, (x,), dynamic_shapes=({1: torch.export.Dim("batch")},))
    assert any(f"aten.{op.lower()}" in str(node.target) for node in exported.graph.nodes)
    other = torch.randn(STEPS, 7, WIDTH)
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(exported.module()(other), view(other), strict=True))


def test_compile() -> None:
    torch._dynamo.reset()
    view, x = to_torch(written("LSTM")), torch.randn(STEPS, 2, WIDTH)
    compiled = torch.compile(view, backend="aot_eager", fullgraph=True)
    gradients = []
    for called in (compiled, view):
        view.zero_grad()
        every, last = called(x)
        (every.square().sum() + last.sum()).backward()
        gradients.append([every.detach(), *(parameter.grad for parameter in view.parameters())])
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*gradients, strict=True))


def test_the_weights_keep_their_names_and_order(tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    onnx.save(written("LSTM"), path)
    view = to_torch(path)
    assert sorted(view.state_dict()) == ["B", "R", "W"]
    to_onnx(view, like=path, out=out)
    assert out.read_bytes() == path.read_bytes()
    with torch.no_grad():
        view.get_parameter("W").mul_(2)
    to_onnx(view, like=path, out=out)
    stored = {held.name: numpy_helper.to_array(held) for held in onnx.load(out).graph.initializer}
    before = {held.name: numpy_helper.to_array(held) for held in onnx.load(path).graph.initializer}
    assert (stored["W"] == 2 * before["W"]).all()


def test_full_lengths_that_come_in_as_an_input() -> None:
    proto = written("GRU")
    proto.graph.node[0].input.append("lengths")
    proto.graph.input.append(value("lengths", ["batch"], TensorProto.INT32))
    view, x = to_torch(proto), torch.randn(STEPS, 2, WIDTH)
    whole = view(x, torch.tensor([STEPS, STEPS], dtype=torch.int32))[0]
    cut = view(x, torch.tensor([STEPS, 2], dtype=torch.int32))[0]
    assert torch.allclose(whole[:, :, 0], cut[:, :, 0], atol=1e-6)
    assert not cut[2:, :, 1].any()
    assert whole[2:, :, 1].all()
