"""Entropy calibration: time over the bare forward passes, and memory, ours and its peers' on the same samples.

    pip install --no-deps --target build/peers -r benchmarks/requirements.txt
    TRTCOMPRESS_DATA=/path/to/data PYTHONPATH=build/peers python benchmarks/calibrate.py
        [--model NAME ...] [--samples N ...] [--method NAME ...] [--rounds N]

Every method runs as a process of its own, in turn, round by round. Seconds are those of the whole process, start and
imports included; those of the bare forward are of its passes alone. The ratio is the median over the rounds of one to
the other in the same round. What was run is kept in `results/calibrate.json` at once, with its machine and commit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from calibrate_methods import BARE, GROWS, OURS, PEERS, Batch, command, missing
from child import run_measured
from machine import describe, results, save
from tasks import find_task
from trtcompress_graph.load import read_model
from trtcompress_graph.simplify import simplify

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "calibrate"
SOURCES = {"resnet50": "resnet50:model", "mobilenet_v2": "mobilenet_v2:model", "minilm": "tasks.minilm:model"}
AXES = {"resnet50": ("x.batch=1,8,16",)}
SAMPLES = (32, 128, 512)
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", choices=SOURCES, help="repeat it; all where none is given")
    parser.add_argument("--samples", action="append", type=int, help="repeat it; 32, 128 and 512 where none is given")
    parser.add_argument("--method", action="append", choices=(OURS, *PEERS), help="beside the bare forward")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    methods = [BARE, *(arguments.method or (OURS, *PEERS))]
    left_out = [method for method in methods if missing(method)]
    if left_out:
        print(f"not installed: {', '.join(left_out)}; see benchmarks/requirements.txt", file=sys.stderr)
    result = {
        "what": __doc__.splitlines()[0],
        "machine": describe("onnx", "onnxruntime", "numba"),
        "rows": results("calibrate").get("rows", {}),
    }
    for name in arguments.model or SOURCES:
        model, samples = prepared(name)
        for count in arguments.samples or SAMPLES:
            runs = measured(model, samples, count, [m for m in methods if m not in left_out], arguments.rounds)
            for method, row in rows(runs).items():
                result["rows"][f"{name} {count} {method}"] = row
                print(line(name, count, method, row), flush=True)
            save("calibrate", result)


def prepared(name: str) -> tuple[Path, Path]:
    """The simplified model, and its samples as a folder of .npz batches; both made once."""
    folder = WORK / name
    model, samples = folder / "model.onnx", folder / "samples"
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        exported = folder / "exported.onnx"
        axes = [part for axis in AXES.get(name) or find_task(name).axes for part in ("--axis", axis)]
        program = str(Path(sys.executable).with_name("trtcompress"))
        subprocess.run([program, "export", SOURCES[name], *axes, "-o", str(exported)], cwd=HERE, check=True)
        simplify(read_model(exported), model)
    if not samples.exists():
        aside = folder / "samples.partial"
        aside.mkdir(exist_ok=True)
        for number, batch in enumerate(made(name)):
            np.savez(aside / f"{number:05}.npz", **batch)
        aside.rename(samples)
    return model, samples


def made(name: str) -> Iterator[Batch]:
    """At least 512 samples; the 500 images begin anew."""
    if name == "minilm":
        from tasks.minilm import calibration

        yield from calibration(0)
        return
    from mobilenet_v2 import batches

    held = np.concatenate([batch["x"] for batch in batches(range(500))])
    for start in range(0, max(SAMPLES), BATCH):
        yield {"x": held[np.arange(start, start + BATCH) % len(held)]}


def measured(model: Path, samples: Path, count: int, methods: list[str], rounds: int) -> dict[str, list[Any]]:
    """Seconds and GiB by method, one entry a round."""
    runs: dict[str, list[Any]] = {method: [] for method in methods}
    out = model.parent / "ranges.json"
    for _ in range(rounds):
        for method in methods:
            if method in GROWS and count > 128:
                continue  # it would not fit into memory
            ended = run_measured(command(method, model, samples, count, out), cwd=HERE)
            if ended.code and method == BARE:
                raise SystemExit(ended.last_words)
            if ended.code:
                print(f"{method}: failed: {ended.last_words}", file=sys.stderr)
                continue
            seconds = json.loads(ended.out)["seconds"] if method == BARE else ended.seconds
            runs[method].append((seconds, ended.peak_gib))
    return runs


def rows(runs: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """Medians, and the ratio to the bare forward of the same round."""
    bare = [seconds for seconds, _ in runs[BARE]]
    found = {}
    for method, pairs in runs.items():
        if pairs:
            ratios = [seconds / base for (seconds, _), base in zip(pairs, bare, strict=False)]
            found[method] = {
                "seconds": statistics.median(seconds for seconds, _ in pairs),
                "over_bare": statistics.median(ratios),
                "ratios": ratios,
                "peak_gib": max(gib for _, gib in pairs),
                "commit": describe()["commit"],
            }
    return found


def line(name: str, count: int, method: str, row: dict[str, Any]) -> str:
    return (
        f"{name:13} {count:4} samples  {method:13} {row['seconds']:7.2f} s  {row['over_bare']:6.2f} times the bare "
        f"forward  {row['peak_gib']:5.2f} GiB"
    )


if __name__ == "__main__":
    main()
