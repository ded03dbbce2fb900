"""What equalization, bias correction and second-order rounding give, each alone and together.

python int8_rounding.py TASK [--folds N] [--method mse]: accuracy of the INT8 graphs as they are written (emulated), and
the squared error of their outputs over the outputs' variance, added to results/int8_rounding.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks import Task, find_task
from trtcompress_calibration.collect import calibrate
from trtcompress_calibration.equalize.equalize import SAMPLES as MAXIMA_SAMPLES
from trtcompress_calibration.equalize.equalize import equalize
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.rounding.round import SAMPLES as MOMENT_SAMPLES
from trtcompress_calibration.rounding.round import round_weights
from trtcompress_calibration.samples import Sample
from trtcompress_engines.backends.onnxruntime import open_graph
from trtcompress_engines.encodings import encodings
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model

HERE = Path(__file__).parent
BUILT = HERE.parent / "build" / "prune_accuracy"
RESULTS = HERE / "results" / "int8_rounding.json"
ENCODINGS = ("cpu-int8", "trt-int8")
VARIANTS: dict[str, tuple[str, bool, bool]] = {
    "none": ("off", False, False),
    "cross-layer": ("cross-layer", False, False),
    "smooth": ("smooth", False, False),
    "bias": ("off", False, True),
    "second-order": ("off", True, False),
    "second-order+bias": ("off", True, True),
    "smooth+second-order+bias": ("smooth", True, True),
}
"""Equalization, second-order rounding, bias correction."""

Row = dict[str, Any]
Floats = NDArray[np.float64]


def samples(task: Task, fold: int) -> list[Sample]:
    return [
        Sample({name: array[i : i + 1] for name, array in batch.items()})
        for batch in task.calibration(fold)
        for i in range(len(next(iter(batch.values()))))
    ]


def tested(task: Task, fold: int, graph: Path) -> tuple[tuple[Floats, Floats], Floats]:
    """Values and truths of the test samples, and all outputs."""
    outputs: list[Floats] = []
    with open_graph(graph, emulate=True) as runner:

        def run(feed: Any) -> NDArray[Any]:
            first = next(iter(runner.infer(feed).values()))
            outputs.append(np.asarray(first, np.float64).reshape(len(first), -1))
            return np.asarray(first)

        values = task.test(fold, run)
    return values, np.concatenate(outputs)


def one_fold(task: Task, model: Model, fold: int, method: str, folder: Path) -> dict[str, tuple[Any, float]]:
    """For each variant and encoding: values and truths, and the error."""
    held = samples(task, fold)
    values, exact = tested(task, fold, model.path)
    found: dict[str, tuple[Any, float]] = {"float": (values, 0.0)}
    ready: dict[str, Any] = {}
    for variant, (how, second_order, bias) in VARIANTS.items():
        if how not in ready:
            made = model if how == "off" else equalize(model, held[:MAXIMA_SAMPLES], how, folder / f"{how}.onnx")[0]
            ready[how] = made, calibrate(made, held, method=method)
        base, ranges = ready[how]
        for name in ENCODINGS:
            encoding = encodings()[name]
            plan = plan_precision(base, ranges, encoding)
            graph = quantize(base, ranges, plan, encoding, folder / "quantized.onnx")
            if second_order or bias:
                graph, _ = round_weights(
                    *(base, graph, encoding, held[:MOMENT_SAMPLES], folder / "rounded.onnx"),
                    second_order=second_order,
                    correct_bias=bias,
                )
            values, given = tested(task, fold, graph.path)
            error = float(((given - exact) ** 2).sum() / ((exact - exact.mean(0)) ** 2).sum())
            found[f"{variant} {name}"] = values, error
            print(fold, variant, name, task.statistic(*values), round(error, 5), flush=True)
    return found


def main(name: str, folds: int, method: str) -> None:
    task = find_task(name)
    model = read_model(BUILT / name / "full.onnx")
    runs = []
    for fold in range(folds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(one_fold(task, model, fold, method, Path(folder)))
    rows: list[Row] = []
    for key in runs[0]:
        joined = [np.concatenate(parts) for parts in zip(*(run[key][0] for run in runs), strict=True)]
        error = float(np.mean([run[key][1] for run in runs]))
        rows.append(
            {"what": key, task.metric: round(task.statistic(joined[0], joined[1]), 4), "error": round(error, 5)}
        )
    held = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    held[f"{name}, {method}"] = {"folds": folds, "samples": int(joined[0].size), "rows": rows}
    RESULTS.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(row)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task")
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--method", default="mse")
    given = parser.parse_args()
    main(given.task, given.folds, given.method)
