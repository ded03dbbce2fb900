"""INT8 on this CPU: accuracy and speed beside FP32, ours and its peers' from the same samples.

    pip install --no-deps -r requirements-assets.txt
    pip install --no-deps --target build/peers -r benchmarks/requirements.txt
    TRTCOMPRESS_DATA=/path/to/data PYTHONPATH=build/peers python benchmarks/int8.py
        [--task NAME ...] [--method NAME ...] [--seconds S]

Accuracy is that of the written graph under ONNX Runtime, on the test samples of all folds of the task, with its 95 %
interval; the drop from FP32, and for ours that from the best peer, are paired. Speed is the median ratio of interleaved
runs with the FP32 graph, one sample at a time and eight; --seconds 0 leaves it out. ResNet-50 has random
weights and is timed alone. `results/int8.json` keeps each row with its commit.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from child import run_measured
from int8_accuracy import accuracy, beside_peers
from int8_methods import OURS, PEERS, commands, fed, missing
from kept_runs import full_model, write_samples
from machine import describe, results, save
from tasks import INT8_NAMES, Arrays, find_task
from trtcompress_engines.backends.onnxruntime import open_graph
from trtcompress_engines.measure import time_pair
from trtcompress_graph.errors import TrtCompressError
from trtcompress_graph.load import read_model

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "int8"
METHODS = (*OURS, *PEERS)
SPEED_ONLY = "resnet50"
SAMPLES = {"mobilenet_v2": 128, "neumf": 2048, SPEED_ONLY: 128}
"""Samples that calibrate, where not 256. ONNX Runtime holds all activations: 27 MB for each image in MobileNetV2."""


@dataclass(frozen=True)
class Made:
    """What a method wrote, in how many seconds, with how much memory at most."""

    path: Path
    seconds: float
    peak_gib: float


class MethodError(Exception):
    """A method ended with an error: its last words."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=(*INT8_NAMES, SPEED_ONLY), help="repeat it; all without any")
    parser.add_argument("--method", action="append", choices=METHODS, help="repeat it; all without any")
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing per graph and batch size; 0: none")
    arguments = parser.parse_args()
    machine = describe("onnx", "onnxruntime", "numba", "torch")
    for name in arguments.task or (*INT8_NAMES, SPEED_ONLY):
        for method in arguments.method or METHODS:
            if missing(method):
                print(f"{method} is not installed: see benchmarks/requirements.txt", file=sys.stderr)
                continue
            row = measured(name, method, arguments.seconds) | {"commit": machine["commit"]}
            print(line(name, method, row), flush=True)
            rows = results("int8").get("rows", {}) | {f"{name} {method}": row}
            save("int8", {"what": __doc__.splitlines()[0], "machine": machine, "rows": rows})
        if name != SPEED_ONLY:
            rows = beside_peers(name, results("int8")["rows"], WORK / name)
            save("int8", results("int8") | {"rows": rows})


def measured(name: str, method: str, seconds: float) -> dict[str, Any]:
    """One method on one task; what fails is kept as such."""
    folds = range(1 if name == SPEED_ONLY else find_task(name).folds)
    full = float_model(name)
    try:
        made = [make(method, full, samples(name, k), WORK / name / f"{method}-{k}.onnx") for k in folds]
        found: dict[str, Any] = {
            "seconds": float(np.mean([one.seconds for one in made])),
            "peak_gib": max(one.peak_gib for one in made),
            "bytes": made[0].path.stat().st_size / full.stat().st_size,
        }
        if name != SPEED_ONLY:
            found |= accuracy(find_task(name), full, [one.path for one in made], WORK / name / f"{method}.npz")
        return found | speed(full, made[0].path, samples(name, 0), seconds)
    except (MethodError, TrtCompressError) as error:
        return {"failed": str(error).splitlines()[0]}


@cache
def float_model(name: str) -> Path:
    if name != SPEED_ONLY:
        return full_model(name, find_task(name), anew=False)
    from calibrate import prepared

    return prepared(name)[0]


@cache
def samples(name: str, fold: int) -> Path:
    """A folder of the batches that calibrate: the same for all methods."""
    folder = WORK / name / f"samples-{fold}"
    if name != SPEED_ONLY:
        write_samples(limited(find_task(name).calibration(fold), SAMPLES.get(name, 256)), folder)
        return folder
    from calibrate import prepared

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(prepared(name)[1].glob("*.npz"))[: SAMPLES[name] // 8]:
        shutil.copy(path, folder)
    return folder


def limited(batches: Iterator[Arrays], count: int) -> Iterator[Arrays]:
    """Samples from all over: every so many batches, as long as there are fewer than `count` samples."""
    held = list(batches)
    sizes = [len(next(iter(batch.values()))) for batch in held]
    kept = np.linspace(0, len(held), min(len(held), max(1, round(len(held) * count / sum(sizes)))), endpoint=False)
    return (held[int(place)] for place in kept)


def make(method: str, full: Path, data: Path, out: Path) -> Made:
    """Run a method.

    Raises:
        MethodError: it failed.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    spent = peak = 0.0
    for command in commands(method, full, data, out):
        ended = run_measured(command, cwd=HERE)
        if ended.code:
            raise MethodError(ended.last_words)
        spent, peak = spent + ended.seconds, max(peak, ended.peak_gib)
    return Made(out, spent, peak)


def speed(full: Path, out: Path, data: Path, seconds: float) -> dict[str, float]:
    """Median ratios to FP32 at one sample and at eight of the first shape; nothing where there is no time for it."""
    if not seconds:
        return {}
    with np.load(sorted(data.glob("*.npz"))[0]) as file:
        batch = fed(full, {name: file[name] for name in file.files})
    axes = {
        spec.name: next(i for i, s in enumerate(spec.shape) if isinstance(s, str)) for spec in read_model(full).inputs
    }
    feeds = {size: {name: repeated(array, axes[name], size) for name, array in batch.items()} for size in (1, 8)}
    with open_graph(out) as engine, open_graph(full) as reference:
        speeds = time_pair(engine, reference, feeds, seconds=seconds)
    return {f"speedup_batch_{size}": speed.speedup for size, speed in zip(feeds, speeds, strict=True)}


def repeated(array: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    """As many as `size` along the axis, each in turn."""
    return np.take(array, np.arange(size) % array.shape[axis], axis)


def line(name: str, method: str, row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{name:13} {method:22} failed: {row['failed']}"
    metric = f"{row['full']:.4f} -> {row['int8']:.4f}" if "full" in row else ""
    times = (
        f"{row['speedup_batch_1']:5.2f} times FP32 at batch 1, {row['speedup_batch_8']:5.2f} at 8; "
        if "speedup_batch_1" in row
        else ""
    )
    return f"{name:13} {method:22} {metric:18} {times}{row['seconds']:6.1f} s, {row['peak_gib']:5.2f} GiB"


if __name__ == "__main__":
    main()
