"""Steps of scales: a share of their size, which does not depend on the rate of the weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trtcompress.recovery.optimizer import MOST_PACE, TRAVEL, make_optimizer, pace_of, schedule, set_rate
from trtcompress.recovery.settings import Training


class Scaled(nn.Module):
    """A weight, and scales that are far from each other in size."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))
        self.small = nn.Parameter(torch.tensor(1e-4))
        self.large = nn.Parameter(torch.tensor([2.0, 300.0]))


def stepped(optimizer_name: str, rate: float, pace: float) -> Scaled:
    module = Scaled()
    training = Training(optimizer=optimizer_name, decay=0.0)
    optimizer = make_optimizer(module, nn.Module(), training, (module.small, module.large))
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_rate(optimizer, rate, pace)
    optimizer.step()
    return module


def test_a_scale_moves_by_a_share_of_its_size():
    made = stepped("adamw", 0.1, 0.01)
    assert torch.allclose(made.weight, torch.full((3, 3), 0.9))
    assert made.small.item() / 1e-4 == pytest.approx(math.exp(-0.01), rel=1e-4)
    assert torch.allclose(made.large / torch.tensor([2.0, 300.0]), torch.tensor(math.exp(-0.01)))


def test_with_sgd_scales_follow_their_gradients():
    made = stepped("sgd", 0.1, 0.01)
    assert made.small.item() == pytest.approx(1e-4 - 0.1 - 0.1 * 0.9, rel=1e-3)  # Nesterov


@pytest.mark.parametrize("total", [300, 1000])
def test_in_a_whole_training_a_scale_can_go_its_way(total: int):
    """A gradient that always points one way: all scales come to the same share of what they were, and none to zero."""
    module = Scaled()
    optimizer = make_optimizer(module, nn.Module(), Training(decay=0.0), (module.small, module.large))
    for step in range(total):
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        share = schedule(step, total)
        set_rate(optimizer, 1e-4 * share, pace_of(total) * share)
        optimizer.step()
    for found, start in ((module.small, 1e-4), (module.large, torch.tensor([2.0, 300.0]))):
        assert torch.allclose((found.detach() / start).log(), torch.tensor(-TRAVEL), rtol=0.06)


def test_a_short_training_does_not_throw_scales_about():
    assert pace_of(10) == MOST_PACE
