"""Recurrent networks by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .entries import BATCH, torch_graph

AXES = {"x": {"batch": BATCH}}
Made = tuple[nn.Module, Tensor]


class Recurrent(nn.Module):
    """A linear layer, a recurrent part, and a classifier of every step."""

    def __init__(self, part: nn.Module, inputs: int, width: int) -> None:
        super().__init__()
        self.embed, self.part, self.head = nn.Linear(6, inputs), part, nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.part(self.embed(x).relu())[0])
        return out


class LastStep(Recurrent):
    """The classifier sees the last step's output and the hidden state."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        steps, state = self.part(self.embed(x).relu())
        hidden = state[0] if isinstance(state, tuple) else state
        return self.head(steps[:, -1]), self.head(hidden[-1])


def steps() -> Tensor:
    return torch.randn(2, 9, 6)


@torch_graph(axes=AXES)
def lstm() -> Made:
    return LastStep(nn.LSTM(20, 28, batch_first=True), 20, 28), steps()


@torch_graph(axes=AXES)
def lstm_both_ways() -> Made:
    """Two layers, in both directions."""
    return Recurrent(nn.LSTM(20, 14, num_layers=2, bidirectional=True, batch_first=True), 20, 28), steps()


@torch_graph(axes=AXES)
def gru() -> Made:
    return LastStep(nn.GRU(20, 28, batch_first=True), 20, 28), steps()


@torch_graph(axes=AXES)
def gru_both_ways() -> Made:
    return Recurrent(nn.GRU(20, 14, num_layers=2, bidirectional=True, batch_first=True), 20, 28), steps()


class Reader(nn.Module):
    """Convolutions, the map read column by column, a recurrent part."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 12, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 10, 3, 1, 1))
        self.part = nn.LSTM(40, 16, bidirectional=True, batch_first=True)
        self.head = nn.Linear(32, 11)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.conv(x).relu().permute(0, 3, 1, 2).flatten(2)
        out: Tensor = self.head(self.part(columns)[0]).log_softmax(-1)
        return out


@torch_graph(axes=AXES)
def reader() -> Made:
    return Reader(), torch.randn(2, 1, 8, 20)
