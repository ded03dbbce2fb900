"""RNN, GRU and LSTM: PyTorch's own kernels where they mean the same, else step by step with all that ONNX allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..kernels import fits, kernel
from ..registry import op

Activation = Callable[[Tensor], Tensor]
Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""From the inputs of all gates at a time and the states to the new states, the hidden one first."""


_NUMBERS: dict[str, tuple[float, ...]] = {
    "affine": (0.0, 0.0),
    "leakyrelu": (0.01,),
    "thresholdedrelu": (1.0,),
    "scaledtanh": (0.0, 0.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0,),
}
"""Activations that take an alpha, or an alpha and a beta, and what these are where too few are given.

ONNX has no default for Affine and ScaledTanh; ONNX Runtime takes 0.
"""


def _activation(name: str, alpha: float = 0.0, beta: float = 0.0) -> Activation:
    known: dict[str, Activation] = {
        "relu": torch.relu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "softsign": functional.softsign,
        "softplus": functional.softplus,
        "affine": lambda x: alpha * x + beta,
        "leakyrelu": lambda x: functional.leaky_relu(x, alpha),
        "thresholdedrelu": lambda x: torch.where(x > alpha, x, 0),
        "scaledtanh": lambda x: alpha * torch.tanh(beta * x),
        "hardsigmoid": lambda x: (alpha * x + beta).clamp(0, 1),
        "elu": lambda x: functional.elu(x, alpha),
    }
    return known[name]


def _activations(names: Any, usual: tuple[str, ...], ways: int, alphas: Any, betas: Any) -> list[list[Activation]]:
    """The activations of each direction. Those that take an alpha or a beta take the next one that is given."""
    left = iter(alphas or ()), iter(betas or ())
    made = []
    for name in (name.lower() for name in names or usual * ways):
        numbers = [next(rest, default) for rest, default in zip(left, _NUMBERS.get(name, ()), strict=False)]
        made.append(_activation(name, *numbers))
    return [made[way * len(usual) : (way + 1) * len(usual)] for way in range(ways)]


def _clipped(function: Activation, clip: float | None) -> Activation:
    return function if not clip else lambda x: function(x.clamp(-clip, clip))


def _run(inputs: Tensor, states: tuple[Tensor, ...], lengths: Tensor | None, backwards: bool, step: Step) -> Any:
    """All hidden states [steps, batch, hidden] and the last states; behind its end a sequence gives 0."""
    steps = inputs.size(0)
    found: list[Tensor] = [inputs] * steps
    for t in reversed(range(steps)) if backwards else range(steps):
        new = step(inputs[t], states)
        if lengths is None:
            states, found[t] = new, new[0]
            continue
        alive = (t < lengths)[:, None]
        found[t] = torch.where(alive, new[0], 0)
        states = tuple(torch.where(alive, n, s) for n, s in zip(new, states, strict=True))
    return torch.stack(found), states


def _recurrent(
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None],
    lengths: Tensor | None,
    first: tuple[Tensor | None, ...],
    direction: str,
    layout: int,
    make_step: Callable[[int, Tensor, Tensor | None], Step],
    input_bias: Callable[[Tensor, int], Tensor],
) -> tuple[Tensor, ...]:
    """The outputs of a layer of any kind.

    Args:
        x: [steps, batch, in], or [batch, steps, in] where `layout` is 1.
        weights: of the inputs [ways, gates, in], of the hidden state [ways, gates, hidden], biases [ways, 2 * gates].
        lengths: of the sequences.
        first: initial states [ways, batch, hidden].
        direction: forward, reverse or bidirectional.
        layout: 1 where the batch comes first.
        make_step: the step of a direction, from its weights of the hidden state and their bias.
        input_bias: what is added to the inputs, from the biases of a direction and the number of gates.
    """
    w, r, b = weights
    x = x.transpose(0, 1) if layout else x
    hidden = r.size(-1)
    outputs, lasts = [], []
    for way in range(w.size(0)):
        bias = None if b is None else b[way]
        gates = torch.matmul(x, w[way].t())
        gates = gates if bias is None else gates + input_bias(bias, w.size(1))
        states = tuple(_first(s, way, layout, x, hidden) for s in first)
        step = make_step(way, r[way], None if bias is None else bias[w.size(1) :])
        made, last = _run(gates, states, lengths, direction == "reverse" or way == 1, step)
        outputs.append(made)
        lasts.append(last)
    every = torch.stack(outputs, 1)
    ends = [torch.stack(parts) for parts in zip(*lasts, strict=True)]
    if not layout:
        return every, *ends
    return every.permute(2, 0, 1, 3), *(end.transpose(0, 1) for end in ends)


def _first(state: Tensor | None, way: int, layout: int, x: Tensor, hidden: int) -> Tensor:
    if state is None:
        return x.new_zeros(x.size(1), hidden)
    return state[:, way] if layout else state[way]


def _added(bias: Tensor, gates: int) -> Tensor:
    """Both biases in one: what RNN and LSTM add."""
    return bias[:gates] + bias[gates:]


@op("RNN", weights=(1, 2, 3))
def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    first: Tensor | None = None,
    /,
    *,
    activation_alpha: Any = None,
    activation_beta: Any = None,
    activations: Any = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    """A layer in which the hidden state is an activation of input and hidden state."""
    same = None if clip else fits(activations, ("Tanh",), w.size(0), lengths, x.size(layout))
    if same:
        return kernel(same, x, (w, r, b), (first,), direction, layout)
    functions = _activations(activations, ("Tanh",), w.size(0), activation_alpha, activation_beta)

    def make_step(way: int, recurrence: Tensor, bias: Tensor | None) -> Step:
        f = _clipped(functions[way][0], clip)
        return lambda gates, states: (f(gates + states[0] @ recurrence.t()),)

    return _recurrent(x, (w, r, b), lengths, (first,), direction, layout, make_step, _added)


@op("GRU", weights=(1, 2, 3))
def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    first: Tensor | None = None,
    /,
    *,
    activation_alpha: Any = None,
    activation_beta: Any = None,
    activations: Any = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    """Gated recurrent units; gates in the order update, reset, hidden."""
    usual = ("Sigmoid", "Tanh")
    same = None if clip or not linear_before_reset else fits(activations, usual, w.size(0), lengths, x.size(layout))
    if same:
        return kernel(same, x, (w, r, b), (first,), direction, layout)
    functions = _activations(activations, usual, w.size(0), activation_alpha, activation_beta)
    hidden = r.size(-1)

    def make_step(way: int, recurrence: Tensor, bias: Tensor | None) -> Step:
        f, g = (_clipped(function, clip) for function in functions[way])
        late = recurrence.new_zeros(3 * hidden) if bias is None else bias

        def step(gates: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (h,) = states
            of_two = h @ recurrence[: 2 * hidden].t() + late[: 2 * hidden]
            z, reset = f(gates[:, : 2 * hidden] + of_two).chunk(2, 1)
            third, shift = recurrence[2 * hidden :].t(), late[2 * hidden :]
            of_one = reset * (h @ third + shift) if linear_before_reset else (reset * h) @ third + shift
            return ((1 - z) * g(gates[:, 2 * hidden :] + of_one) + z * h,)

        return step

    return _recurrent(x, (w, r, b), lengths, (first,), direction, layout, make_step, lambda bias, gates: bias[:gates])


@op("LSTM", weights=(1, 2, 3, 7))
def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    first: Tensor | None = None,
    cell: Tensor | None = None,
    peepholes: Tensor | None = None,
    /,
    *,
    activation_alpha: Any = None,
    activation_beta: Any = None,
    activations: Any = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    """Long short-term memory; gates in the order input, output, forget, cell."""
    usual, more = ("Sigmoid", "Tanh", "Tanh"), clip or input_forget or peepholes is not None
    same = None if more else fits(activations, usual, w.size(0), lengths, x.size(layout))
    if same:
        return kernel(same, x, (w, r, b), (first, cell), direction, layout)
    functions = _activations(activations, usual, w.size(0), activation_alpha, activation_beta)

    def make_step(way: int, recurrence: Tensor, bias: Tensor | None) -> Step:
        f, g = (_clipped(function, clip) for function in functions[way][:2])
        h = functions[way][2]
        peep = (None,) * 3 if peepholes is None else peepholes[way].chunk(3)
        return lambda gates, states: _cell(gates + states[0] @ recurrence.t(), states[1], f, g, h, peep, input_forget)

    return _recurrent(x, (w, r, b), lengths, (first, cell), direction, layout, make_step, _added)


def _cell(
    gates: Tensor, before: Tensor, f: Activation, g: Activation, h: Activation, peep: Any, coupled: int
) -> tuple[Tensor, Tensor]:
    """The new hidden state and cell."""
    i, o, forget, c = gates.chunk(4, 1)
    look_i, look_o, look_f = (0 if p is None else p for p in peep)
    enter = f(i + look_i * before)
    keep = 1 - enter if coupled else f(forget + look_f * before)
    new = keep * before + enter * g(c)
    return f(o + look_o * new) * h(new), new
