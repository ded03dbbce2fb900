"""INT8 on this CPU: accuracy and speed beside FP32, ours and its peers' from the same samples.

    pip install --no-deps --target build/peers -r benchmarks/requirements.txt
    TRTCOMPRESS_DATA=/path/to/data PYTHONPATH=build/peers python benchmarks/int8.py
        [--task NAME ...] [--method NAME ...] [--seconds S]

Accuracy is that of the written graph under ONNX Runtime, on the test samples of the task's first fold, with its 95 %
interval; the drop is paired. Speed is the median ratio of interleaved runs with the FP32 graph, one sample at a time
and eight. ResNet-50 has random weights and is timed alone. `results/int8.json` keeps each row with its commit.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from child import run_measured
from int8_methods import OURS, PEERS, commands, missing
from kept_runs import full_model, write_samples
from machine import describe, results, save
from paired import compare
from tasks import NAMES, Arrays, Task, find_task
from trtcompress_engines.backends.onnxruntime import open_graph
from trtcompress_engines.measure import time_pair
from trtcompress_graph.errors import TrtCompressError

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "int8"
METHODS = (OURS, *PEERS)
SPEED_ONLY = "resnet50"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=(*NAMES, SPEED_ONLY), help="repeat it; all without any")
    parser.add_argument("--method", action="append", choices=METHODS, help="repeat it; all without any")
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing per graph and batch size")
    arguments = parser.parse_args()
    machine = describe("onnx", "onnxruntime", "numba", "torch")
    result = {"what": __doc__.splitlines()[0], "machine": machine, "rows": results("int8").get("rows", {})}
    for name in arguments.task or (*NAMES, SPEED_ONLY):
        for method in arguments.method or METHODS:
            if missing(method):
                print(f"{method} is not installed: see benchmarks/requirements.txt", file=sys.stderr)
                continue
            row = measured(name, method, arguments.seconds) | {"commit": machine["commit"]}
            result["rows"][f"{name} {method}"] = row
            print(line(name, method, row), flush=True)
            save("int8", result)


def measured(name: str, method: str, seconds: float) -> dict[str, Any]:
    """One method on one task; what fails is kept as such."""
    if name == SPEED_ONLY:
        from calibrate import prepared

        full, samples = prepared(name)
        samples = first(samples, 16)
        task = None
    else:
        task = find_task(name)
        full, samples = full_model(name, task, anew=False), WORK / name / "samples"
        samples.parent.mkdir(parents=True, exist_ok=True)
        write_samples(task.calibration(0), samples)
    out = WORK / name / f"{method}.onnx"
    out.parent.mkdir(parents=True, exist_ok=True)
    spent = peak = 0.0
    for command in commands(method, full, samples, out):
        ended = run_measured(command, cwd=HERE)
        if ended.code:
            return {"failed": ended.last_words}
        spent, peak = spent + ended.seconds, max(peak, ended.peak_gib)
    try:
        return {
            "seconds": spent,
            "peak_gib": peak,
            "bytes": out.stat().st_size / full.stat().st_size,
            **(accuracy(task, full, out) if task is not None else {}),
            **speed(full, out, samples, seconds),
        }
    except TrtCompressError as error:
        return {"failed": str(error).splitlines()[0]}


def first(samples: Path, count: int) -> Path:
    """A folder with the first few of the batches."""
    folder = samples.with_name(f"first-{count}")
    if not folder.exists():
        folder.mkdir()
        for path in sorted(samples.glob("*.npz"))[:count]:
            shutil.copy(path, folder)
    return folder


def accuracy(task: Task, full: Path, out: Path) -> dict[str, Any]:
    """The metric of both graphs, and the paired drop."""
    found = []
    for path in (full, out):
        with open_graph(path) as runner:
            found.append(task.test(0, lambda feed, runner=runner: next(iter(runner.infer(feed).values()))))
    (before, truths), (after, _) = found
    return compare(task.statistic, before, after, truths)


def speed(full: Path, out: Path, samples: Path, seconds: float) -> dict[str, float]:
    """Median ratios to FP32 at one sample and at eight of the commonest shape."""
    with np.load(sorted(samples.glob("*.npz"))[0]) as file:
        batch: Arrays = {name: file[name] for name in file.files}
    repeated = {name: np.concatenate([array] * 8)[:8] for name, array in batch.items()}
    feeds = {size: {name: np.ascontiguousarray(a[:size]) for name, a in repeated.items()} for size in (1, 8)}
    with open_graph(out) as engine, open_graph(full) as reference:
        speeds = time_pair(engine, reference, feeds, seconds=seconds)
    return {f"speedup_batch_{size}": speed.speedup for size, speed in zip(feeds, speeds, strict=True)}


def line(name: str, method: str, row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{name:13} {method:20} failed: {row['failed']}"
    metric = f"{row['full']:.4f} -> {row['pruned']:.4f}" if "full" in row else ""
    return (
        f"{name:13} {method:20} {metric:18} {row['speedup_batch_1']:5.2f} times FP32 at batch 1, "
        f"{row['speedup_batch_8']:5.2f} at 8; {row['seconds']:6.1f} s, {row['peak_gib']:5.2f} GiB"
    )


if __name__ == "__main__":
    main()
