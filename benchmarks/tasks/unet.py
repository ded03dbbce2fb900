"""A small U-Net (arXiv 1505.04597) that finds soft blobs in noise; images and masks are generated, none is medical."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import Arrays, Floats, Run, Task, share
from .trained import minimize, steps, with_weights

SIDE, WIDTHS = 64, (8, 16, 32)
EPOCHS, BATCH, SEED = 5, 16, 0
TRAINED, CALIBRATION, TEST = 800, 192, 300

Images = NDArray[np.float32]


def model() -> tuple[Any, dict[str, Any]]:
    import torch

    return with_weights(network(), __file__, train), {"x": torch.zeros(2, 1, SIDE, SIDE)}


def network() -> Any:
    """Images [N, 1, 64, 64] -> logits of the mask [N, 1, 64, 64]."""
    import torch
    from torch import Tensor, nn

    def block(inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for width in (inputs, outputs):
            layers += [nn.Conv2d(width, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(*layers)

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pairs = list(pairwise(WIDTHS))
            self.start, self.pool = block(1, WIDTHS[0]), nn.MaxPool2d(2)
            self.down = nn.ModuleList(block(a, b) for a, b in pairs)
            self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in reversed(pairs))
            self.join = nn.ModuleList(block(2 * a, a) for a, _ in reversed(pairs))
            self.mask = nn.Conv2d(WIDTHS[0], 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            levels = [self.start(x)]
            for down in self.down:
                levels.append(down(self.pool(levels[-1])))
            x = levels.pop()
            for up, join in zip(self.up, self.join, strict=True):
                x = join(torch.cat([levels.pop(), up(x)], 1))
            return self.mask(x)

    torch.manual_seed(SEED)
    return UNet()


def train(module: Any) -> None:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

    images, masks = (torch.from_numpy(array) for array in blobs(TRAINED, 0))
    module.to(memory_format=torch.channels_last)

    def loss(some: Any) -> Any:
        logits, wanted = module(images[some]), masks[some]
        found = logits.sigmoid()
        both = (found * wanted).sum() * 2 / (found.sum() + wanted.sum())
        return cross_entropy(logits, wanted) + 1 - both

    minimize(module, loss, steps(TRAINED, BATCH, EPOCHS), 5e-3)


def calibration(fold: int) -> Iterator[Arrays]:
    images, _ = blobs(CALIBRATION, 1)
    for start in range(0, CALIBRATION, BATCH):
        yield {"x": images[start : start + BATCH]}


def test(fold: int, run: Run) -> tuple[Floats, Floats]:
    """The Dice coefficient of each image."""
    images, masks = blobs(TEST, 2)
    found = np.concatenate([run({"x": images[start : start + BATCH]}) > 0 for start in range(0, TEST, BATCH)])
    both = (found & (masks > 0)).sum((1, 2, 3))
    return 2 * both / (found.sum((1, 2, 3)) + masks.sum((1, 2, 3))), np.ones(TEST)


@cache
def blobs(count: int, seed: int) -> tuple[Images, Images]:
    """Images of one to five bumpy blobs on an uneven ground in noise, and masks of the blobs, [count, 1, 64, 64]."""
    made = [blob_image(np.random.default_rng([seed, i])) for i in range(count)]
    return np.stack([image for image, _ in made])[:, None], np.stack([mask for _, mask in made])[:, None]


def blob_image(rng: np.random.Generator) -> tuple[Images, Images]:
    y, x = np.mgrid[:SIDE, :SIDE]
    mask = np.zeros((SIDE, SIDE), bool)
    image = rng.normal(0, 0.5) * x / SIDE + rng.normal(0, 0.5) * y / SIDE
    for _ in range(rng.integers(1, 6)):
        cx, cy, radius = rng.uniform(8, SIDE - 8), rng.uniform(8, SIDE - 8), rng.uniform(4, 11)
        angle = np.arctan2(y - cy, x - cx)
        waves = sum(rng.normal(0, 0.12) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (2, 3, 5))
        depth = radius * (1 + waves) - np.hypot(x - cx, y - cy)
        mask |= depth > 0
        image = image + rng.uniform(0.4, 1.2) / (1 + np.exp(-depth))
    noisy = image + rng.normal(0, 0.4, (SIDE, SIDE))
    return noisy.astype(np.float32), mask.astype(np.float32)


TASK = Task(
    source="tasks.unet:model",
    axes=("x.batch=1,8,64",),
    kept=(0.7,),
    folds=1,
    metric="Dice",
    statistic=share,
    full=(0.80, 0.99),
    calibration=calibration,
    test=test,
    module=lambda: model()[0],
    spared=("mask",),
    data=f"generated images of blobs: {TRAINED} train, {CALIBRATION} others calibrate, {TEST} others test",
)
