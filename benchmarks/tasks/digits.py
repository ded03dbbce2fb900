"""A depthwise CNN that hears spoken digits: trained here on log-mel frames, tested on the usual split."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import Arrays, Floats, Run, Task, share
from .spoken import recordings
from .trained import minimize, steps, with_weights

RATE, WINDOW, HOP, MELS, FRAMES = 8000, 256, 80, 40, 64
EPOCHS, BATCH, SEED = 8, 64, 0
CALIBRATION, TEST_BATCH = 400, 50
BLOCKS = ((16, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2))
"""Channels in and out, stride."""


def model() -> tuple[Any, dict[str, Any]]:
    import torch

    return with_weights(network(), __file__, train), {"input": torch.zeros(2, 1, MELS, FRAMES)}


def network() -> Any:
    """Log-mel [N, 1, 40, 64] -> logits [N, 10]; depthwise and pointwise convolutions in turns (MobileNet)."""
    import torch
    from torch import nn

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
        made = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [made, nn.BatchNorm2d(outputs), nn.ReLU6()]

    torch.manual_seed(SEED)
    layers = conv(1, BLOCKS[0][0], 3, 2)
    for inputs, outputs, stride in BLOCKS:
        layers += [*conv(inputs, inputs, 3, stride, inputs), *conv(inputs, outputs, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(BLOCKS[-1][1], 10))


def train(module: Any) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    images, labels = (torch.from_numpy(array) for array in features(tested=False))
    module.to(memory_format=torch.channels_last)  # depthwise kernels are several times as fast
    generator = torch.Generator().manual_seed(SEED)

    def loss(some: Any) -> Any:
        shift = int(torch.randint(-8, 9, (), generator=generator))
        louder = torch.randn(len(some), 1, 1, 1, generator=generator) * 0.3
        heard = torch.roll(images[some], shift, -1) + louder
        return cross_entropy(module(heard.contiguous(memory_format=torch.channels_last)), labels[some])

    minimize(module, loss, steps(len(images), BATCH, EPOCHS), 3e-3)


def calibration(fold: int) -> Iterator[Arrays]:
    images, _ = features(tested=False)
    places = np.random.default_rng(1).permutation(len(images))[:CALIBRATION]
    for start in range(0, CALIBRATION, TEST_BATCH):
        yield {"input": images[places[start : start + TEST_BATCH]]}


def test(fold: int, run: Run) -> tuple[Floats, Floats]:
    images, labels = features(tested=True)
    parts = [run({"input": images[start : start + TEST_BATCH]}) for start in range(0, len(images), TEST_BATCH)]
    right = np.concatenate(parts).argmax(-1) == labels
    return right.astype(np.float64), labels.astype(np.float64)


@cache
def features(tested: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Log-mel frames [N, 1, 40, 64], about of mean 0 and deviation 1, and digits."""
    held = recordings(tested)
    return np.stack([log_mel(sound) for _, sound in held])[:, None], np.array([digit for digit, _ in held])


def log_mel(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """[40, 64]: 0.64 s from the middle of a recording, or all of it between silence."""
    length = WINDOW + (FRAMES - 1) * HOP
    spare = len(sound) - length
    sound = sound[spare // 2 :][:length] if spare > 0 else np.pad(sound, (-spare // 2, -spare - -spare // 2))
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames)) ** 2
    return ((np.log(power @ filters().T + 1e-5) + 5) / 4).T.astype(np.float32)


@cache
def filters() -> NDArray[np.float64]:
    """Triangles on the mel scale, [mels, bins]."""
    mels = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), MELS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    up = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    down = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.clip(np.minimum(up, down), 0, None)


TASK = Task(
    source="tasks.digits:model",
    axes=("input.batch=1,8,64",),
    kept=(0.7,),
    folds=1,
    metric="top-1",
    statistic=share,
    full=(0.93, 1.0),
    calibration=calibration,
    test=test,
    module=lambda: model()[0],
    spared=("29",),
    data=f"spoken digits: {CALIBRATION} of those that were trained on calibrate, 250 others test",
)
