"""Accuracy of int8.py: each sample's value is kept, so that two methods can be compared on the same samples."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from int8_methods import OURS, PEERS
from paired import compare
from tasks import Arrays, Floats, Task, find_task
from trtcompress_engines.backends.onnxruntime import open_graph


def accuracy(task: Task, full: Path, graphs: list[Path], kept: Path) -> dict[str, Any]:
    """The metric of the float model and of the graphs of all folds, with the paired drop; values are kept as a file."""
    before = [of_full(task, full, fold) for fold in range(task.folds)]
    after = [values(task, graph, fold) for fold, graph in enumerate(graphs)]
    exact, truths, found, _ = (np.concatenate(part) for part in (*zip(*before, strict=True), *zip(*after, strict=True)))
    low, high = task.full
    if not low <= task.statistic(exact, truths) <= high:
        raise SystemExit(f"the full model reaches {task.statistic(exact, truths):.4f}, not {low} to {high}: {full}")
    np.savez(kept, values=found, truths=truths)
    return named(compare(task.statistic, exact, found, truths), "full", "int8")


def values(task: Task, graph: Path, fold: int) -> tuple[Floats, Floats]:
    """Values and truths of the test samples of a fold."""
    with open_graph(graph) as runner:

        def run(feed: Arrays) -> Any:
            outputs = runner.infer(feed)
            return outputs if task.all_outputs else next(iter(outputs.values()))

        return task.test(fold, run)


of_full = cache(values)


def beside_peers(name: str, rows: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The rows, ours with what they drop from the best peer's (a negative one: they are better); printed too."""
    task = find_task(name)
    peers = {method: rows[key] for method in PEERS if "int8" in rows.get(key := f"{name} {method}", {})}
    kept = {method: folder / f"{method}.npz" for method in (*OURS, *peers)}
    if not peers or not all(kept[method].is_file() for method in peers):
        return rows
    best = max(peers, key=lambda method: peers[method]["int8"])
    with np.load(kept[best]) as file:
        reference, truths = file["values"], file["truths"]
    for method in OURS:
        row = rows.get(f"{name} {method}", {})
        if "int8" in row and kept[method].is_file():
            with np.load(kept[method]) as file:
                found = compare(task.statistic, reference, file["values"], truths)
            against = {"peer": best, "drop": found["drop"], "drop_ci": found["drop_ci"]}
            rows = rows | {f"{name} {method}": row | {"against_best_peer": against}}
            low, high = found["drop_ci"]
            print(f"{name:13} {method:22} drops {found['drop']:.4f} ({low:.4f} to {high:.4f}) from {best}", flush=True)
    return rows


def named(found: dict[str, Any], before: str, after: str) -> dict[str, Any]:
    """What `compare` calls full and pruned under names of its own."""
    return {key.replace("full", before).replace("pruned", after): value for key, value in found.items()}
