"""MobileNetV2 on 500 ImageNet samples in five folds: 400 images calibrate without their labels, 100 test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import mobilenet_v2
from paired import folds

from . import Arrays, Floats, Run, Task, share

IMAGES, FOLDS = 500, 5


def calibration(fold: int) -> Iterator[Arrays]:
    for batch in mobilenet_v2.batches(folds(IMAGES, FOLDS)[fold].rest):
        yield {"x": batch["x"]}


def test(fold: int, run: Run) -> tuple[Floats, Floats]:
    right, labels = [], []
    for batch in mobilenet_v2.batches(folds(IMAGES, FOLDS)[fold].held):
        right.append(run({"x": batch["x"]}).argmax(-1) == batch["labels"])
        labels.append(batch["labels"])
    return np.concatenate(right).astype(np.float64), np.concatenate(labels).astype(np.float64)


def module() -> Any:
    return mobilenet_v2.model()[0]


TASK = Task(
    source="mobilenet_v2:model",
    axes=("x.batch=1,8,64",),
    kept=(0.8, 0.6),
    folds=FOLDS,
    metric="top-1",
    statistic=share,
    full=(0.79, 0.88),
    calibration=calibration,
    test=test,
    data="500 ImageNet samples in five folds: 400 images without labels calibrate, 100 test",
    module=module,
    spared=("classifier.1",),
)
