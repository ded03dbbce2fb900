"""Norms in two real processes on the CPU take the statistics, and give the gradients, of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, fx, nn

from trtcompress.recovery.across import Step, spread_norms
from trtcompress.recovery.batches import Part
from trtcompress.recovery.norms import by_batch
from trtcompress_graph.torch_view.modules import BatchNorm

STEPS: dict[str, list[list[tuple[list[int], Part]]]] = {
    "uneven": [[(list(range(21)), Part(21, 33, 33, False))], [(list(range(21, 33)), Part(12, 33, 33, False))]],
    "idle": [[(list(range(33)), Part(33, 33, 33, False))], [([0], Part(0, 33, 33, False))]],
    "apart": [
        [(list(range(16)), Part(16, 52, 16, True, 3, 2)), (list(range(32, 48)), Part(16, 52, 16, True, 3, 0))],
        [(list(range(16, 32)), Part(16, 52, 16, True, 3, 1)), (list(range(48, 52)), Part(4, 52, 4, True, 3, 0))],
    ],
    "only a narrow one": [
        [(list(range(16)), Part(16, 20, 16, True, 1, 0))],
        [(list(range(16, 20)), Part(4, 20, 4, True, 1, 0))],
    ],
}
"""By name, for each of two processes: the samples of each pass, and what it is of the step."""


class Net(nn.Module):
    """Both kinds of norms, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5, eps=2.0**-16)
        self.own = BatchNorm(0.2, 1e-5)
        self.scale, self.bias = nn.Parameter(torch.rand(5) + 0.5), nn.Parameter(torch.rand(5))
        self.register_buffer("mean", torch.rand(5))
        self.register_buffer("variance", torch.rand(5) + 0.5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.conv(x)))
        return self.own(x, self.scale, self.bias, self.mean, self.variance)


class Leaves(fx.Tracer):
    """Keeps the norms of graphs whole, as views do."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, BatchNorm) or super().is_leaf_module(module, name)


def view() -> fx.GraphModule:
    """The network as a torch view would be."""
    net = Net()
    return fx.GraphModule(net, Leaves().trace(net)).eval()


def step(net: nn.Module, passes: list[tuple[list[int], Part]], world: int) -> dict[str, Tensor]:
    """Gradients and running statistics behind a step."""
    chance = torch.Generator().manual_seed(1)
    x, wanted = torch.randn(52, 3, 8, 8, generator=chance) + 3, torch.randn(52, 5, 6, 6, generator=chance)
    statistics = Step(net, [part for _, part in passes])
    for rows, part in passes:
        statistics.before(part)
        with by_batch(net, part.width, part):
            loss = (net(x[rows]) - wanted[rows]).square().mean()
        statistics.behind(part)
        (loss * world * part.counted / part.total).backward()
    if world > 1:
        for parameter in net.parameters():
            distributed.all_reduce(parameter.grad)
            parameter.grad /= world
    skipped = "norm.num_batches_tracked"
    grads = {f"of {name}": parameter.grad for name, parameter in net.named_parameters()}
    return grads | {name: value for name, value in net.named_buffers() if name != skipped}


def run_process(folder: Path, rank: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    made = {}
    for name, passes in STEPS.items():
        net = view()
        spread_norms(net)
        made[name] = step(net, passes[rank], 2)
    torch.save(made, folder / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> list[dict[str, dict[str, Tensor]]]:
    """What each of two processes came to."""
    folder = tmp_path_factory.mktemp("across")
    run = [subprocess.Popen([sys.executable, __file__, str(folder), str(rank)], env=os.environ) for rank in range(2)]
    assert [process.wait(timeout=840) for process in run] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_two_processes_is_that_of_one(made, name):
    rows = sorted(((rows, part) for passes in STEPS[name] for rows, part in passes if part.counted), key=lambda p: p[0])
    total = sum(len(held) for held, _ in rows)
    if not rows[0][1].alone:
        rows = [(list(range(total)), Part(total, total, total, alone=False))]
    expected = step(view(), rows, 1)
    for found in made:
        assert found[name].keys() == expected.keys()
        for what, value in expected.items():
            assert torch.allclose(found[name][what], value, rtol=1e-4, atol=1e-6), what


def test_statistics_of_each_half_are_others(made):
    """What it was before: the test above would see it."""
    half = step(view(), [(STEPS["uneven"][0][0][0], Part(21, 21, 21, alone=False))], 1)
    assert not torch.allclose(half["of conv.weight"], made[0]["uneven"]["of conv.weight"], rtol=1e-2)


def test_names_and_tensors_stay(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        net = view()
        before = net.state_dict(keep_vars=True)
        spread_norms(net)
        after = net.state_dict(keep_vars=True)
    finally:
        distributed.destroy_process_group()
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)


if __name__ == "__main__":
    run_process(Path(sys.argv[1]), int(sys.argv[2]))
