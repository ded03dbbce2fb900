"""What can be cut in each graph of the zoo, how long it takes to find and to cut, and whether every cut is exact.

    python benchmarks/zoo.py [NAME ...]

For every graph: groups, the share of its parameters and multiply-accumulates that goes when each group keeps one part,
seconds to analyse and to cut that, and the proof of every group (the pruned graph against the full one with the same
set to zero). Each graph is kept at once in `results/zoo.json` with the commit that it ran on, so that the same command
goes on after it was stopped. It ends with exit code 1 where a proof fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import zoo
from machine import RESULTS, describe, save
from trtcompress.pruning.budget import Costs
from trtcompress.pruning.coupling import analyse
from trtcompress.pruning.cut import Cut
from trtcompress.pruning.surgery import apply_cut
from trtcompress_graph.errors import PruneError
from trtcompress_graph.load import load_ir
from zoo.proof import Subject, prove, subject


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="graphs; all without any")
    arguments = parser.parse_args()
    machine = describe("onnxruntime", "onnx", "onnx-ir", "torch", "transformers")
    result = kept(machine["commit"]) or {"machine": machine, "commit": machine["commit"], "graphs": {}}
    for name in arguments.names or zoo.NAMES:
        if name not in result["graphs"]:
            result["graphs"][name] = row(name)
            save("zoo", result)
        print(told(name, result["graphs"][name]), flush=True)
    graphs = result["graphs"].values()
    total = {"graphs": len(graphs), "groups": sum(g["groups"] for g in graphs)}
    wrong = {name: graph["wrong"] for name, graph in result["graphs"].items() if graph["wrong"]}
    print(json.dumps(total | {"wrong": wrong}))
    return 1 if wrong else 0


def kept(commit: str | None) -> dict[str, Any] | None:
    """What was kept of this commit."""
    path = RESULTS / "zoo.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found if found and found["commit"] == commit else None


def row(name: str) -> dict[str, Any]:
    """Measure and prove one graph."""
    given = subject(name, zoo.model(name))
    seconds, full, left = timed(given)
    groups = given.coupling.groups
    wrong = {group.name: problem for group in groups if (problem := proven(given, group))}
    return {
        "nodes": len(given.proto.graph.node),
        "groups": len(groups),
        "kinds": {kind: sum(group.kind == kind for group in groups) for kind in sorted({g.kind for g in groups})},
        "left_whole": len(given.coupling.left),
        "parameters": full.parameters,
        "macs": full.macs,
        "parameters_cut": 1 - left.parameters / full.parameters if full.parameters else 0.0,
        "macs_cut": 1 - left.macs / full.macs if full.macs else 0.0,
        "seconds": seconds,
        "proven": len(groups) - len(wrong),
        "wrong": wrong,
    }


def timed(given: Subject) -> tuple[dict[str, float], Any, Any]:
    """Seconds to analyse and to cut as much as can be cut, and the costs before and after."""
    graph = load_ir(given.model)
    start = time.perf_counter()
    coupling = analyse(graph.graph, given.shapes[0])
    analysed = time.perf_counter() - start
    costs = Costs(graph.graph, coupling, given.shapes[0])
    units: list[int] = []
    left = costs.full
    for group in coupling.groups:
        more = [unit for cell in group.cells for unit in cell[len(cell) // group.step :]]
        try:
            left = costs.of([*units, *more])
        except PruneError:
            continue  # not together with what is cut already
        units += more
    start = time.perf_counter()
    apply_cut(graph, coupling, Cut.of(coupling.relations, units), given.shapes[0])
    return {"analyse": round(analysed, 3), "cut": round(time.perf_counter() - start, 3)}, costs.full, left


def proven(given: Subject, group: Any) -> str:
    """What is wrong with a cut of a group, or nothing."""
    try:
        return prove(given, group)
    except PruneError as error:
        return f"{error.where}: {error.what}"


def told(name: str, found: dict[str, Any]) -> str:
    shares = f"{found['parameters_cut']:4.0%} of the parameters, {found['macs_cut']:4.0%} of the MACs can go"
    took = f"{found['seconds']['analyse']:.2f} s + {found['seconds']['cut']:.2f} s"
    proofs = f"{found['proven']} proven, {found['wrong'] or 'none wrong'}"
    return f"{name}: {found['groups']} groups, {shares}, {took}, {proofs}"


if __name__ == "__main__":
    sys.exit(main())
