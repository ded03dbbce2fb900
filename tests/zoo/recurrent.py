"""Recurrent networks by hand."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from onnx_models import model, value

from .entries import BATCH, onnx_graph, torch_graph

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


@onnx_graph(axes={"x": {"batch": BATCH}})
def recurrent_plain() -> onnx.ModelProto:
    """An LSTM in both directions and a GRU behind it, without initial states."""
    rng = np.random.default_rng(0)

    def weights(name: str, directions: int, gates: int, hidden: int, inputs: int) -> dict[str, np.ndarray]:
        rows = gates * hidden
        return {
            f"{name}.W": (rng.standard_normal((directions, rows, inputs)) / inputs**0.5).astype(np.float32),
            f"{name}.R": (rng.standard_normal((directions, rows, hidden)) / hidden**0.5).astype(np.float32),
            f"{name}.B": (rng.standard_normal((directions, 2 * rows)) * 0.3).astype(np.float32),
        }

    lstm = ["x", "lstm.W", "lstm.R", "lstm.B"]
    gru = ["joined", "gru.W", "gru.R", "gru.B"]
    return model(
        [
            helper.make_node("LSTM", lstm, ["both"], name="lstm", hidden_size=14, direction="bidirectional"),
            helper.make_node("Transpose", ["both"], ["turned"], name="turn", perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", ["turned", "flat"], ["joined"], name="join"),
            helper.make_node("GRU", gru, ["", "last"], name="gru", hidden_size=20, linear_before_reset=1),
            helper.make_node("Squeeze", ["last", "first"], ["state"], name="state"),
            helper.make_node("MatMul", ["state", "head"], ["y"], name="head"),
        ],
        [value("x", [9, "batch", 6])],
        [value("y", ["batch", 5])],
        weights("lstm", 2, 4, 14, 6)
        | weights("gru", 1, 3, 20, 28)
        | {
            "flat": np.array([0, 0, -1]),
            "first": np.array([0]),
            "head": rng.standard_normal((20, 5)).astype(np.float32),
        },
    )
