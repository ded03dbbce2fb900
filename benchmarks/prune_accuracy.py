"""Accuracy after a cut without training: our pruning and its peers, on the same samples at the same cost.

    pip install --no-deps --target build/peers -r benchmarks/requirements.txt
    TRTCOMPRESS_DATA=/path/to/data PYTHONPATH=build/peers python benchmarks/prune_accuracy.py
        [--task NAME ...] [--method NAME ...] [--folds N] [--again]

Each method runs as a process of its own on an ONNX file and unlabelled samples (Torch-Pruning: on the module), and
writes an ONNX file. Costs of all are counted on these files by `trtcompress_graph.cost`; seconds and peak memory are
those of the process, peers' search for the setting that meets the budget included. What is done is kept under
`build/prune_accuracy`, one file a task, fold and method, so that a run goes on where it ended; a method whose code
changed runs anew. The table and `results/prune_accuracy.json` tell of all that is kept, not of the last run alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from kept_runs import Job, kept_runs, run_job
from machine import describe, results, save
from paired import compare
from prune_methods import OURS, PEERS, missing
from tasks import NAMES, Task, find_task

METHODS = (*OURS, *PEERS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=NAMES, help="repeat it; all where none is given")
    parser.add_argument("--method", action="append", choices=METHODS, help="repeat it; all where none is given")
    parser.add_argument("--folds", type=int, help="run no more than this many of each task's folds")
    parser.add_argument("--again", action="store_true", help="run what is kept already, too")
    arguments = parser.parse_args()
    methods = [name for name in arguments.method or METHODS if told_if_missing(name)]
    for name in arguments.task or NAMES:
        task = find_task(name)
        for job in jobs(name, task, methods, arguments.folds):
            say(run_job(job, task, again=arguments.again))
    machine = describe("torch", "onnx", "onnxruntime", "transformers")
    where = {key: machine[key] for key in ("cpu", "flags", "cores", "commit")}
    now = {name: summary(name, find_task(name), where) for name in NAMES if kept_runs(name, "full", 1.0)}
    before = results("prune_accuracy").get("tasks", {})
    result = {"what": __doc__.splitlines()[0], "machine": machine, "tasks": joined(before, now)}
    print(table(result["tasks"]))
    say(f"kept in {save('prune_accuracy', result)}")


def told_if_missing(method: str) -> bool:
    """False, and said so, for a method that is not installed."""
    if hint := missing(method):
        say(f"{method} is left out: {hint}")
    return not hint


def jobs(name: str, task: Task, methods: list[str], folds: int | None) -> Iterator[Job]:
    """The full model of each fold first, then what can be done: some peers need a module, or a BatchNorm in it."""
    for fold in range(min(folds or task.folds, task.folds)):
        yield Job(name, fold, "full", 1.0)
        for kept in task.kept:
            for method in methods:
                if task.module is None and method.startswith("torch-pruning"):
                    continue
                if method.endswith("+bn") and not task.batch_norm:
                    continue
                yield Job(name, fold, method, kept)


def summary(name: str, task: Task, machine: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a task: by method and fraction, over all folds that the method ran on."""
    full = kept_runs(name, "full", 1.0)
    rows = []
    for kept in task.kept:
        for method in METHODS:
            runs = kept_runs(name, method, kept)
            common = [
                f for f in sorted(full.keys() & runs.keys()) if full[f]["task_version"] == runs[f]["task_version"]
            ]
            if common:
                rows.append(
                    {
                        "method": method,
                        "kept": kept,
                        "machine": machine,
                        **row(task, [full[f] for f in common], [runs[f] for f in common]),
                    }
                )
    everything = np.concatenate([run["values"] for run in full.values()])
    reached = task.statistic(everything, np.concatenate([run["truths"] for run in full.values()]))
    low, high = task.full
    return {
        "metric": task.metric,
        "data": task.data,
        "folds": len(full),
        "full": reached,
        "full_as_expected": low <= reached <= high,
        "rows": rows,
    }


def joined(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What was measured now, and of what was measured before the rows that are not there or of more folds."""
    tasks = dict(before)
    for name, task in now.items():
        old = {(r["method"], r["kept"]): r for r in before.get(name, {}).get("rows", ())}
        new = {(r["method"], r["kept"]): r for r in task["rows"]}
        chosen = old | {key: r for key, r in new.items() if r["folds"] >= old.get(key, {"folds": 0})["folds"]}
        order = sorted(chosen, key=lambda key: (-key[1], METHODS.index(key[0])))
        more_folds = any(r["folds"] > task["folds"] for r in chosen.values())
        held = before[name] if more_folds else task
        tasks[name] = {**held, "rows": [chosen[key] for key in order]}
    return {name: tasks[name] for name in NAMES if name in tasks}


def row(task: Task, full: list[dict[str, Any]], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A method at one fraction: the metric over the samples of all folds, costs and means over the folds."""

    def joined(records: list[dict[str, Any]], key: str) -> np.ndarray:
        return np.concatenate([np.array(record[key], np.float64) for record in records])

    return {
        "folds": len(runs),
        **compare(task.statistic, joined(full, "values"), joined(runs, "values"), joined(runs, "truths")),
        "macs": sum(r["macs"] for r in runs) / sum(r["macs"] for r in full),
        "parameters": sum(r["parameters"] for r in runs) / sum(r["parameters"] for r in full),
        "seconds": max(r["seconds"] for r in runs),
        "peak_gib": max(r["peak_gib"] for r in runs),
        "versions": sorted({r["version"] for r in runs}),
    }


def table(tasks: dict[str, Any]) -> str:
    """One line a task, method and fraction."""
    lines = [
        f"{'task':13} {'method':17} {'asked':>5} {'MACs':>6} {'params':>6} {'full':>6} {'pruned':>7} {'95 %':>15} "
        f"{'drop':>7} {'95 %':>16} {'s':>6} {'GiB':>5} folds"
    ]
    for name, task in tasks.items():
        if not task["full_as_expected"]:
            lines.append(f"{name}: the full model reaches {task['full']:.4f}, not what it did before: check the data")
        for r in task["rows"]:
            lines.append(
                f"{name:13} {r['method']:17} {r['kept']:5.2f} {r['macs']:6.3f}{mark(r)}{r['parameters']:6.3f} "
                f"{r['full']:6.3f} {r['pruned']:7.4f} {interval(r['pruned_ci']):>15} "
                f"{r['drop']:7.4f} {interval(r['drop_ci']):>16} {r['seconds']:6.1f} {r['peak_gib']:5.2f} {r['folds']:5}"
            )
    if any(mark(r).strip() for task in tasks.values() for r in task["rows"]):
        lines.append("! the method did not get down to the multiply-accumulates that were asked for")
    return "\n".join(lines)


def mark(row: dict[str, Any]) -> str:
    return "!" if row["macs"] > row["kept"] + 0.005 else " "


def interval(ends: list[float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
