"""What quantization-aware training brings back of what INT8 lost, from unlabelled samples.

    pip install --no-deps -r requirements-assets.txt
    TRTCOMPRESS_DATA=/path/to/data python benchmarks/qat.py [--task NAME ...] [--minutes M]

The full model is calibrated (min-max, whose ranges cost most), quantized and then trained under its quantization on the
samples of recover.py. All graphs run under ONNX Runtime with Q/DQ computed as it is written, so that no kernel of this
CPU counts. The error is the squared error of the outputs over their variance on the test samples; metric drops are
paired. `results/qat.json` keeps each row with its commit; `build/qat/NAME/recover.log` what the training told.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from child import run_measured
from kept_runs import full_model, write_samples
from machine import describe, results, save
from paired import compare
from recover_tasks import RECOVERIES, Recovery, recovery_of
from tasks import Arrays, Floats
from trtcompress_engines.backends.onnxruntime import open_graph

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "qat"
ROWS = (("digits", "cpu", 4.0), ("cifar", "cpu", 10.0), ("mobilenet_v2", "cpu", 10.0), ("minilm", "rtx-4090", 6.0))
"""Tasks, the target whose encoding they get, and minutes of training."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=RECOVERIES, help="repeat it; all without any")
    parser.add_argument("--minutes", type=float, help="of training, in place of each row's own")
    arguments = parser.parse_args()
    machine = describe("torch", "onnx", "onnxruntime", "lightning-fabric")
    for name, target, minutes in ROWS:
        if arguments.task and name not in arguments.task:
            continue
        row = measured(name, target, arguments.minutes or minutes) | {"commit": machine["commit"]}
        print(line(name, target, row), flush=True)
        rows = results("qat").get("rows", {}) | {f"{name} {target}": row}
        save("qat", {"what": __doc__.splitlines()[0], "machine": machine, "rows": rows})


def measured(name: str, target: str, minutes: float) -> dict[str, Any]:
    recovery = recovery_of(name)
    full = full_model(name, recovery.task, anew=False)
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    ranges, ptq, qat = folder / "ranges.json", folder / "ptq.onnx", folder / "qat.onnx"
    samples, calibration = folder / "samples", folder / "calibration"
    write_samples(recovery.samples(), samples)
    write_samples(recovery.task.calibration(0), calibration)
    program = str(Path(sys.executable).with_name("trtcompress"))
    how = ["--teacher", str(full), "--data", str(samples), "--minutes", str(minutes), "--restart"]
    for command in (
        ["calibrate", str(full), "--data", str(calibration), "--method", "minmax", "-o", str(ranges)],
        ["quantize", str(full), "--ranges", str(ranges), "--target", target, "-o", str(ptq)],
        ["recover", str(ptq), *how, "--qat", "-o", str(qat)],
    ):
        ended = run_measured([program, *command], cwd=HERE)
        (folder / f"{command[0]}.log").write_text(ended.out + ended.err, encoding="utf-8")
        if ended.code:
            return {"failed": ended.last_words}
    before, truths, outputs = tested(recovery, full)
    found: dict[str, Any] = {"minutes": minutes, "data": recovery.data, "full": recovery.task.statistic(before, truths)}
    for label, path in (("ptq", ptq), ("qat", qat)):
        values, _, changed = tested(recovery, path)
        drop = compare(recovery.task.statistic, before, values, truths)
        found[label] = {"metric": drop["pruned"], "drop": drop["drop"], "drop_ci": drop["drop_ci"]}
        found[label]["error"] = float(np.square(changed - outputs).mean() / outputs.var())
    return found | {"regained": 1 - found["qat"]["error"] / found["ptq"]["error"]}


def tested(recovery: Recovery, path: Path) -> tuple[Floats, Floats, Floats]:
    """Values and truths of the metric, and all outputs in a row."""
    seen: list[Floats] = []

    def heard(answer: Arrays) -> Arrays:
        seen.extend(np.asarray(array, np.float64).ravel() for array in answer.values())
        return answer

    with open_graph(path, emulate=True) as runner:
        if recovery.task.all_outputs:
            values, truths = recovery.test(lambda feed: heard(dict(runner.infer(feed))))
        else:
            values, truths = recovery.test(lambda feed: next(iter(heard(dict(runner.infer(feed))).values())))
    return values, truths, np.concatenate(seen)


def line(name: str, target: str, row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{name:13} {target:9} failed: {row['failed']}"
    ptq, qat = row["ptq"], row["qat"]
    return (
        f"{name:13} {target:9} {row['full']:.4f}; quantized {ptq['metric']:.4f}, error {ptq['error']:.4g}; "
        f"trained {qat['metric']:.4f}, error {qat['error']:.4g}: {row['regained']:.0%} less"
    )


if __name__ == "__main__":
    main()
