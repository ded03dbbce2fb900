"""Steps down the loss: optimizer, learning rate over time, moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from .norms import statistics
from .settings import Training

WARM_UP = 0.05
"""Share of the steps in which the rate rises."""

RATES = {
    "adamw": (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "sgd": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
}
"""Learning rates that a probe tries. AdamW's steps are as long as its rate however small gradients are: a student that
answers nearly as its teacher, as it does behind a gentle cut, is only disturbed by rates that others learn from."""

FIRST_RATE = {"adamw": 1e-3, "sgd": 1e-2}
"""The rate that is tried first."""

SLOW = 0.1
"""Share of the rate that projections of losses learn with: they were fitted, and are to follow."""


TRAVEL = 1.2
"""How far scales may go in a training, as the logarithm of their ratio: ranges of outliers shrink to a third."""

MOST_PACE = 0.01
"""How far it goes in a step at the most."""


def make_optimizer(
    student: nn.Module, terms: nn.Module, training: Training, scales: Sequence[Tensor] = ()
) -> Optimizer:
    """AdamW, or SGD with Nesterov's momentum; vectors (biases, norms, scales) do not decay.

    Scales have a pace of their own under AdamW, see `by_ratios`. SGD follows the gradients, which LSQ (arXiv
    1902.08153) has set right.
    """
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    apart = {id(scale) for scale in scales} if training.optimizer == "adamw" else set()
    trained = [parameter for parameter in trained if id(parameter) not in apart]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": training.decay, "share": 1.0},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0, "share": 1.0},
        {"params": list(terms.parameters()), "weight_decay": 0.0, "share": SLOW},
        *([paced(scales)] if apart else []),
    ]
    groups = [group for group in groups if group["params"]]
    if training.optimizer == "sgd":
        return SGD(groups, lr=1e-3, momentum=0.9, nesterov=True)
    # Many small kernels cost more than they compute; without a GPU it is memory that they cost
    optimizer = AdamW(groups, lr=1e-3, foreach=trained[0].is_cuda if trained else False)
    if scales:
        by_ratios(optimizer, scales)
    return optimizer


def paced(scales: Sequence[Tensor]) -> dict[str, Any]:
    """The group of scales for an optimizer; see `by_ratios`."""
    return {"params": list(scales), "weight_decay": 0.0, "paced": True}


def by_ratios(optimizer: Optimizer, scales: Sequence[Tensor]) -> None:
    """Let each step of Adam change the logarithm of the scales and not the scales themselves.

    Adam's steps are as long as its rate, whatever the gradient and the size: on a logarithm that is a ratio, the same
    for the channels of a tensor that are far from each other, and no scale gets to zero.
    """
    held: list[Tensor] = []

    @torch.no_grad()
    def before(*_: Any) -> None:
        held[:] = [scale.detach().clone() for scale in scales]

    @torch.no_grad()
    def after(*_: Any) -> None:
        moved = torch._foreach_sub([scale.detach() for scale in scales], held)
        torch._foreach_copy_([scale.detach() for scale in scales], torch._foreach_mul(held, torch._foreach_exp(moved)))

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def pace_of(total: int) -> float:
    """How far the logarithm of a scale goes in a step at its full rate, in a training of so many steps."""
    return min(MOST_PACE, 2 * TRAVEL / total)  # over time rates are half of their greatest


def set_rate(optimizer: Optimizer, rate: float, pace: float = 0.0) -> None:
    """The learning rate of the next step, and the pace of scales."""
    for group in optimizer.param_groups:
        group["lr"] = pace if "paced" in group else rate * group.get("share", 1.0)


def schedule(step: int, total: int) -> float:
    """Factor of the learning rate: a linear rise, then half a cosine down to nothing (arXiv 1608.03983)."""
    warm = max(1, round(WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


class Average:
    """A moving average of the weights and running statistics; at first it follows quickly.

    Args:
        module: of which the parameters are averaged.
        decay: what is kept of the average in a step, in the long run; 0 keeps nothing.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self.values = {name: tensor.detach().clone() for name, tensor in self._named()}

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._module.named_parameters()
        yield from statistics(self._module).items()

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take in the weights after a step."""
        decay = min(self._decay, (1 + step) / (10 + step))
        names, tensors = zip(*self._named(), strict=True)
        torch._foreach_lerp_([self.values[name] for name in names], [tensor.detach() for tensor in tensors], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module with the average for its weights."""
        held = {name: tensor.detach().clone() for name, tensor in self._named()}
        self.load(self.values)
        try:
            yield
        finally:
            self.load(held)

    @torch.no_grad()
    def load(self, values: dict[str, Tensor]) -> None:
        """Put weights, and the running statistics that belong to them, into the module."""
        for name, tensor in self._named():
            tensor.copy_(values[name])
