"""What equalization, bias correction and second-order rounding give, each alone and together.

python int8_rounding.py TASK [--folds N] [--method mse] [--only VARIANT ...] [--encodings NAME ...]

It takes the accuracy of the INT8 graphs as they are written (emulated), and
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
from trtcompress.config import Method
from trtcompress.trying import equalized_model, rounded_model
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
    "auto": ("auto", True, True),
}
"""Equalization, second-order rounding, bias correction; auto leaves all three to what is measured."""

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


def equalized(model: Model, held: list[Sample], how: str, method: Method, out: Path) -> Model:
    """As a build does it; `auto` is measured in the encoding of the first target."""
    if how == "off":
        return model
    if how != "auto":
        return equalize(model, held[:MAXIMA_SAMPLES], how, out)[0]
    made = equalized_model(
        model, held[:MOMENT_SAMPLES], out, how="auto", method=method, skip=(), encoding=encodings()[ENCODINGS[0]]
    )
    print(made.chosen, made.trials)
    return made


def one_fold(
    task: Task, model: Model, fold: int, method: Method, only: list[str], names: list[str], folder: Path
) -> dict[str, tuple[Any, float]]:
    """For each variant and encoding: values and truths, and the error."""
    held = samples(task, fold)
    values, exact = tested(task, fold, model.path)
    found: dict[str, tuple[Any, float]] = {"float": (values, 0.0)}
    ready: dict[str, Any] = {}
    for variant, (how, second_order, bias) in VARIANTS.items():
        if only and variant not in only:
            continue
        if how not in ready:
            made = equalized(model, held, how, method, folder / f"{how}.onnx")
            ready[how] = made, calibrate(made, held, method=method)
        base, ranges = ready[how]
        for name in names:
            encoding = encodings()[name]
            plan = plan_precision(base, ranges, encoding)
            graph: Model = quantize(base, ranges, plan, encoding, folder / "quantized.onnx")
            if how == "auto":
                graph = rounded_model(
                    *(base, graph, held[:MOMENT_SAMPLES], folder / "rounded.onnx"),
                    rounding="auto",
                    correct_bias=None,
                    encoding=encoding,
                )
                print(name, graph.chosen, graph.trials)
            elif second_order or bias:
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


def main(name: str, folds: int, method: Method, only: list[str], names: list[str]) -> None:
    task = find_task(name)
    model = read_model(BUILT / name / "full.onnx")
    runs = []
    for fold in range(folds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(one_fold(task, model, fold, method, only, names, Path(folder)))
    rows: dict[str, Row] = {}
    for key in runs[0]:
        joined = [np.concatenate(parts) for parts in zip(*(run[key][0] for run in runs), strict=True)]
        error = float(np.mean([run[key][1] for run in runs]))
        rows[key] = {task.metric: round(task.statistic(joined[0], joined[1]), 4), "error": round(error, 5)}
    held = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    section = f"{name}, {method}, {folds} folds"
    rows = held.get(section, {}).get("rows", {}) | rows
    held[section] = {"samples": int(joined[0].size), "rows": rows}
    RESULTS.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    for what, row in rows.items():
        print(what, row)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task")
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--method", default="mse")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--encodings", nargs="*", default=list(ENCODINGS))
    given = parser.parse_args()
    main(given.task, given.folds, given.method, given.only, given.encodings)
