"""What `trtcompress sensitivity` costs, and how well it ranks, beside leaving one node out after the other.

    TRTCOMPRESS_DATA=/path/to/data python benchmarks/sensitivity.py [--task NAME ...] [--target T ...]

Leave-one-out quantizes one node alone and runs all calibration samples through the graph, once a node. The ranking is
compared by Spearman's coefficient over the nodes. Seconds are processor time of this process, so that what else runs
on the machine counts less. `results/sensitivity.json` keeps each row with its commit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kept_runs import full_model
from machine import describe, results, save
from tasks import NAMES, Task, find_task
from trtcompress.asked import encoding_of
from trtcompress_calibration.batching import batches
from trtcompress_calibration.collect import calibrate
from trtcompress_calibration.layout import lay_out
from trtcompress_calibration.opening import open_graph
from trtcompress_calibration.placement import int8_nodes
from trtcompress_calibration.precision import needed_opset, plan_precision
from trtcompress_calibration.qdq import QdqWriter
from trtcompress_calibration.samples import Sample
from trtcompress_calibration.sensitivity import sensitivity, spread
from trtcompress_calibration.spots import node_spots
from trtcompress_calibration.walk import Answers
from trtcompress_engines.backends import onnxruntime as runtime
from trtcompress_graph.load import read_model, save_ir

SAMPLES = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=NAMES, help="repeat it; all without any")
    parser.add_argument("--target", action="append", help="repeat it; cpu without any")
    arguments = parser.parse_args()
    machine = describe("onnx", "onnxruntime", "numba")
    result = {"what": __doc__.splitlines()[0], "machine": machine, "rows": results("sensitivity").get("rows", {})}
    for name in arguments.task or NAMES:
        for target in arguments.target or ("cpu",):
            row = measured(name, find_task(name), target) | {"commit": machine["commit"]}
            result["rows"][f"{name} {target}"] = row
            print(
                f"{name:13} {target:10} {row['nodes']:3} nodes: leave-one-out {row['leave_one_out_s']:7.1f} s, "
                f"sensitivity {row['ratio']:.3f} of it ({row['ratio_with_tensors']:.3f} with the tensors), "
                f"Spearman {row['spearman']:.4f}",
                flush=True,
            )
            save("sensitivity", result)


def measured(name: str, task: Task, target: str) -> dict[str, Any]:
    """Costs and the agreement of the two rankings."""
    model, encoding = read_model(full_model(name, task, anew=False)), encoding_of(target, "int8")
    samples = spread(list(single(task)), SAMPLES)
    ranges = calibrate(model, samples)
    plan = plan_precision(model, ranges, encoding)
    sensitivity(model, ranges, plan, encoding, samples, tensors=False)  # kernels are compiled, files are read
    found, seconds = timed(lambda: sensitivity(model, ranges, plan, encoding, samples, tensors=False))
    _, with_tensors = timed(lambda: sensitivity(model, ranges, plan, encoding, samples, tensors=True))
    feeds = [dict(batch.inputs) for batch in batches(samples, model.inputs, 8)]

    def run(path: Path) -> list[dict[str, Any]]:
        with runtime.open_graph(path, emulate=True) as graph:
            return [graph.infer(feed) for feed in feeds]

    answers = Answers(run(model.path), found.outputs)

    def alone(node: str, folder: Path) -> float:
        loaded = open_graph(model, needed_opset(encoding))
        int8 = int8_nodes(loaded.graph, plan, encoding)
        pairs = lay_out(loaded.graph, int8, encoding, ranges.tensors)
        (spot,) = (s for s in node_spots(loaded.graph, int8, pairs, encoding) if s.node.name == node)
        own = [
            pair
            if pair.value.name in spot.writes
            else replace(pair, readers=tuple(use for use in pair.readers if use[0] is spot.node), whole=False)
            for pair in spot.pairs
        ]
        QdqWriter(loaded.graph, encoding).write(own, {spot.node})
        return float(answers.damage(run(save_ir(loaded, folder / "one.onnx").path)))

    with tempfile.TemporaryDirectory() as folder:
        exact, whole = timed(lambda: [alone(each.name, Path(folder)) for each in found.nodes])
    return {
        "nodes": len(found.nodes),
        "samples": len(samples),
        "samples_taken": found.samples,
        "seconds": seconds,
        "leave_one_out_s": whole,
        "ratio": seconds / whole,
        "ratio_with_tensors": with_tensors / whole,
        "spearman": spearman([each.damage for each in found.nodes], exact),
    }


def single(task: Task) -> Any:
    """Calibration samples one by one."""
    for arrays in task.calibration(0):
        for place in range(len(next(iter(arrays.values())))):
            yield Sample({name: array[place : place + 1] for name, array in arrays.items()})


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and the seconds of processor time that it took."""
    started = time.process_time()
    return call(), time.process_time() - started


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
