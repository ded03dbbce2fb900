"""A ResNet-20 (arXiv 1512.03385) on 20,000 images of CIFAR-10: trained here, tested on 2,000 others."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import Arrays, Floats, Run, Task, share
from .trained import data_file, minimize, steps, with_weights

ARCHIVE = "cifar10-22k.zip"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = np.float32([0.4914, 0.4822, 0.4465]), np.float32([0.2470, 0.2435, 0.2616])
WIDTHS, BLOCKS = (16, 32, 64), 3
EPOCHS, BATCH, SEED = 12, 128, 0
CALIBRATION, TEST_BATCH = 1000, 100


def model() -> tuple[Any, dict[str, Any]]:
    import torch

    return with_weights(network(), __file__, train), {"input": torch.zeros(2, 3, 32, 32)}


def network() -> Any:
    """Images [N, 3, 32, 32] -> logits [N, 10]."""
    import torch
    from torch import Tensor, nn

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
        made = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(made, nn.BatchNorm2d(outputs))

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3)
            self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else conv(inputs, outputs, 1, stride)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.second(self.relu(self.first(x))) + self.shortcut(x))

    torch.manual_seed(SEED)
    layers: list[nn.Module] = [conv(3, WIDTHS[0], 3), nn.ReLU()]
    before = WIDTHS[0]
    for width in WIDTHS:
        for place in range(BLOCKS):
            layers.append(Block(before, width, 2 if place == 0 and width > WIDTHS[0] else 1))
            before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], len(CLASSES)))


def train(module: Any) -> None:
    import torch
    from torch.nn.functional import cross_entropy, pad

    images, labels = (torch.from_numpy(array) for array in pictures("train"))
    module.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(SEED)

    def loss(some: Any) -> Any:
        down, right = (int(n) for n in torch.randint(0, 9, (2,), generator=generator))
        moved = pad(images[some], (4, 4, 4, 4))[..., down : down + 32, right : right + 32]
        flipped = torch.where(torch.rand(len(some), 1, 1, 1, generator=generator) < 0.5, moved.flip(-1), moved)
        return cross_entropy(module(flipped.contiguous(memory_format=torch.channels_last)), labels[some])

    minimize(module, loss, steps(len(images), BATCH, EPOCHS), 3e-3)


def calibration(fold: int) -> Iterator[Arrays]:
    images, _ = pictures("train")
    places = np.random.default_rng(1).permutation(len(images))[:CALIBRATION]
    for start in range(0, CALIBRATION, TEST_BATCH):
        yield {"input": images[places[start : start + TEST_BATCH]]}


def test(fold: int, run: Run) -> tuple[Floats, Floats]:
    images, labels = pictures("val")
    parts = [run({"input": images[start : start + TEST_BATCH]}) for start in range(0, len(images), TEST_BATCH)]
    right = np.concatenate(parts).argmax(-1) == labels
    return right.astype(np.float64), labels.astype(np.float64)


@cache
def pictures(part: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Normalised images [N, 3, 32, 32] and classes, in a fixed shuffled order."""
    pixels, labels = pixels_of(part)
    images = np.ascontiguousarray(((pixels.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2))
    return images, labels


@cache
def pixels_of(part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, 32, 32, 3] and classes, in a fixed shuffled order."""
    from PIL import Image

    path = data_file(ARCHIVE, "CIFAR-10 as JPEG, train/CLASS/*.jpg and val/CLASS/*.jpg")
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith(f"{part}/") and name.endswith(".jpg"))
        names = [names[place] for place in np.random.default_rng(0).permutation(len(names))]
        pixels = np.stack([np.asarray(Image.open(BytesIO(archive.read(name))).convert("RGB")) for name in names])
    return pixels, np.array([CLASSES.index(PurePosixPath(name).parent.name) for name in names], np.int64)


TASK = Task(
    source="tasks.cifar:model",
    axes=("input.batch=1,8,128",),
    kept=(0.5,),
    folds=1,
    metric="top-1",
    statistic=share,
    full=(0.72, 0.95),
    calibration=calibration,
    test=test,
    module=lambda: model()[0],
    spared=("13",),
    data=f"CIFAR-10: {CALIBRATION} of 20,000 images that were trained on calibrate, 2,000 others test",
)
