"""Inner tensors that are computed again: less is held, and the gradients are the same."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from trtcompress.recovery.thrift import frugal

DEPTH = 32


class Held(TorchDispatchMode):
    """Which tensors were made, without holding them."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.made.append(weakref.ref(out))
        return out

    def bytes(self) -> int:
        alive = [tensor for ref in self.made if (tensor := ref()) is not None]
        return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in alive}.values())


def passed(module: nn.Module, x: torch.Tensor) -> tuple[int, list[torch.Tensor]]:
    """Bytes that are held between the ways there and back, and the gradients."""
    module.zero_grad()
    with Held() as held:
        loss = module(x).square().mean()
        kept = held.bytes()
        loss.backward()
    return kept, [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]


def test_less_is_held_and_the_gradients_are_the_same():
    torch.manual_seed(0)
    view = torch.fx.symbolic_trace(nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(DEPTH))))
    x = torch.randn(256, 64)
    usual, gradients = passed(view, x)
    less, again = passed(frugal(view), x)
    assert less < usual / 3
    assert len(again) == len(gradients) == 2 * DEPTH
    assert all(torch.equal(one, two) for one, two in zip(again, gradients, strict=True))
