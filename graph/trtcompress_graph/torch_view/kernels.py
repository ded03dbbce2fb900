"""PyTorch's own recurrent kernels, for the layers of ONNX that mean the same; weights are read in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

KERNELS: dict[tuple[str, ...], tuple[Callable[..., Any], tuple[int, ...]]] = {
    ("tanh",): (torch.rnn_tanh, (0,)),
    ("relu",): (torch.rnn_relu, (0,)),
    ("sigmoid", "tanh"): (torch.gru, (1, 0, 2)),
    ("sigmoid", "tanh", "tanh"): (torch.lstm, (0, 2, 3, 1)),
}
"""By the activations of a direction: the kernel, and at which place ONNX has each of its gates."""


def kernel(
    activations: tuple[str, ...],
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None],
    first: tuple[Tensor | None, ...],
    direction: str,
    layout: int,
) -> tuple[Tensor, ...]:
    """The outputs of a layer that `fits`, of sequences that are all as long as `x`.

    Args:
        activations: of a direction, a key of `KERNELS`.
        x: [steps, batch, in], or [batch, steps, in] where `layout` is 1.
        weights: of the inputs [ways, gates, in], of the hidden state [ways, gates, hidden], biases [ways, 2 * gates].
        first: initial states [ways, batch, hidden], or [batch, ways, hidden] where `layout` is 1.
        direction: forward, reverse or bidirectional.
        layout: 1 where the batch comes first.

    Returns:
        All hidden states [steps, ways, batch, hidden] ([batch, steps, ways, hidden]), and the last states like `first`.
    """
    run, order = KERNELS[activations]
    w, r, b = weights
    ways, hidden = w.size(0), r.size(-1)
    x = x.transpose(0, 1) if layout else x
    x = x.flip(0) if direction == "reverse" else x
    states = [_state(state, layout, x, ways, hidden) for state in first]
    held = [
        _ordered(part, order) for way in range(ways) for part in _parts(w[way], r[way], None if b is None else b[way])
    ]
    train = torch.is_grad_enabled()  # what the backward pass needs is kept
    given = states if len(states) > 1 else states[0]
    every, *ends = run(x, given, held, b is not None, 1, 0.0, train, ways == 2, False)
    every = every.flip(0) if direction == "reverse" else every
    every = every.unflatten(-1, (ways, hidden))
    if layout:
        return every.transpose(0, 1), *(end.transpose(0, 1) for end in ends)
    return every.transpose(1, 2), *ends


def _parts(w: Tensor, r: Tensor, b: Tensor | None) -> tuple[Tensor, ...]:
    return (w, r) if b is None else (w, r, *b.chunk(2))


def _ordered(part: Tensor, order: tuple[int, ...]) -> Tensor:
    """The gates of a weight or bias in another order."""
    gates = part.chunk(len(order))
    return torch.cat([gates[place] for place in order]) if len(order) > 1 else part


def _state(state: Tensor | None, layout: int, x: Tensor, ways: int, hidden: int) -> Tensor:
    if state is None:
        return x.new_zeros(ways, x.size(1), hidden)
    return (state.transpose(0, 1) if layout else state).contiguous()  # cuDNN takes no other


def fits(names: Any, usual: tuple[str, ...], ways: int, lengths: Tensor | None, steps: int) -> tuple[str, ...] | None:
    """The activations of a direction where there is a kernel for them and no sequence is shorter than the others.

    What lengths a tensor holds is unknown while a graph is captured: the layer then runs step by step. So it does under
    `torch.compile`, which takes the kernels apart into steps anyway, and fails on that of the LSTM where it is trained.
    """
    given = tuple(name.lower() for name in names or usual * ways)
    one = given[: len(usual)]
    if given != one * ways or one not in KERNELS:
        return None
    if torch.compiler.is_compiling() and (lengths is not None or not torch.compiler.is_exporting()):
        return None
    if lengths is not None and bool((lengths < steps).any()):
        return None
    return one
