"""A small network as a torch view would be, without ONNX: a teacher, a student of it, and samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import fx, nn

from trtcompress.recovery.augment import Changes
from trtcompress.recovery.batches import Batches
from trtcompress.recovery.devices import make_fabric
from trtcompress.recovery.feed import Feed
from trtcompress.recovery.job import placed
from trtcompress.recovery.learner import Learner, judging, make_terms, start_terms, teacher_view, tensors_of
from trtcompress.recovery.loop import Loop
from trtcompress.recovery.losses import LossOptions
from trtcompress.recovery.losses.registry import Seen
from trtcompress.recovery.pairs import Pair, Shared
from trtcompress.recovery.pool import Pool, fill
from trtcompress.recovery.settings import Training
from trtcompress.recovery.taps import tapped
from trtcompress_calibration.samples import Sample
from trtcompress_graph.model import TensorSpec

INPUTS = (TensorSpec("x", "float32", ("batch", 6)),)


class Net(nn.Module):
    """`x` (batch, 6) to `y` (batch, 4), with `hidden` (batch, width) between."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        chance = torch.Generator().manual_seed(seed)
        self.first = nn.Linear(6, width)
        self.last = nn.Linear(width, 4)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=chance)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x)))


def view(width: int, seed: int) -> fx.GraphModule:
    made = fx.symbolic_trace(Net(width, seed)).eval()
    names = {"x": "x", "tanh": "hidden", "last": "y"}
    for node in made.graph.nodes:
        if node.name in names:
            node.meta["onnx"] = names[node.name]
    return made


def samples(count: int, seed: int = 0) -> list[Sample]:
    chance = np.random.default_rng(seed)
    return [Sample({"x": chance.normal(size=(1, 6)).astype(np.float32)}, np.array(i % 4)) for i in range(count)]


def pool_of(folder: Path, count: int = 96) -> Pool:
    return fill(samples(count), INPUTS, folder, "samples")


def pair_of(pool: Pool, width: int = 8, seed: int = 2) -> tuple[Pair, torch.Tensor, torch.Tensor]:
    student, teacher = view(width, seed), view(16, 1).requires_grad_(False)
    x = torch.from_numpy(pool.read(0, np.arange(32))["x"])
    labels = torch.arange(32) % 4
    first = Seen({"y": student(x).detach()}, {"y": teacher(x)}, labels)
    shared = (Shared("hidden", "Tanh", False, (32, width), (32, 16)),)
    return Pair(student, teacher, INPUTS, ("y",), ("y",), shared, first), x, labels


def loop_of(
    folder: Path,
    training: Training,
    losses: tuple[tuple[str, float], ...] = (("logits", 1.0),),
    told: Callable[[str, int, int | None], None] = lambda what, done, total: None,
) -> tuple[Loop, Pair]:
    """A loop over 96 samples, which goes on with what lies in `folder`."""
    pool = pool_of(folder / "pool")
    pair, x, labels = pair_of(pool)
    terms = make_terms(pair, losses, LossOptions())
    start_terms(pair, terms, ((x,),), labels)
    fabric = make_fabric(training)
    fabric.launch()
    placed(pair, fabric.device)
    batches = Batches(pool, training.batch, training.seed)
    teacher, judges = teacher_view(pair, terms), frozenset(tensors_of(judging(terms)))
    feed = Feed(batches, teacher, fabric.device, Changes(), {"x": "other"}, fabric.autocast, judges=judges)
    learner = Learner(pair, terms, tapped(pair.student, pair.outputs, tensors_of(terms)))
    return Loop(fabric, learner, feed, training, folder, told), pair


class Counted(torch.nn.Module):
    """Counts how often it answers."""

    def __init__(self, answering: torch.nn.Module) -> None:
        super().__init__()
        self.answering, self.asked = answering, 0

    def forward(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        self.asked += 1
        return self.answering(*inputs)
