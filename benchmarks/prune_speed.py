"""What a cut of ResNet-50 is worth in ONNX Runtime: measured speedup beside the reduction of multiply-accumulates.

    PYTHONPATH=build/peers python benchmarks/prune_speed.py [--seconds 5] [--cut NAME ...]

Cuts by parameters (uniform: 0.27 is half of every width), cuts by multiply-accumulates, and onnxsim's structured
pruning at half the channels. Each cut graph is timed in turn with the full one, batches of 1 and 8, FP32. Results go to
`results/prune_speed.json`; cuts that are not run again stay there as they are.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from child import run_measured
from machine import RESULTS, describe, results, save
from prune_methods import missing
from trtcompress_engines.backends.onnxruntime import open_graph
from trtcompress_engines.measure import time_pair
from trtcompress_graph.cost import model_cost
from trtcompress_graph.load import read_model
from trtcompress_graph.simplify import simplify

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "prune_speed"
PROGRAM = str(Path(sys.executable).with_name("trtcompress"))
BATCHES = (1, 8)
CUTS = {
    "params 0.27 uniform": ("--params", "0.27", "--allocation", "uniform"),
    "params 0.1 uniform": ("--params", "0.1", "--allocation", "uniform"),
    "macs 0.75": ("--macs", "0.75"),
    "macs 0.5": ("--macs", "0.5"),
    "macs 0.25": ("--macs", "0.25"),
    "macs 0.1": ("--macs", "0.1"),
}
"""Options of `trtcompress prune`."""

ONNXSIM = "onnxsim half"
PEER = (
    "import sys; from pathlib import Path; import onnx, onnxsim_peer; "
    "onnx.save(onnxsim_peer.structured(Path(sys.argv[1]), 0.5), sys.argv[2])"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing per cut and batch size")
    parser.add_argument("--cut", action="append", choices=(*CUTS, ONNXSIM), help="repeat it; all where none is given")
    arguments = parser.parse_args()
    full = full_model()
    whole = cost(full)
    result = {
        "what": __doc__.splitlines()[0],
        "machine": describe("torch", "onnx", "onnxruntime", "transformers"),
        "full": whole,
        "cuts": results("prune_speed").get("cuts", {}),
    }
    for name in arguments.cut or (*CUTS, ONNXSIM):
        if name == ONNXSIM and (hint := missing("onnxsim")):
            print(f"{name} is left out: {hint}", file=sys.stderr)
            continue
        cut = WORK / f"{name.replace(' ', '-')}.onnx"
        ended = run_measured(command(name, full, cut), cwd=HERE)
        if ended.code:
            print(f"{name}: failed: {ended.last_words}", file=sys.stderr)
            continue
        costs = {"cut_s": ended.seconds, "peak_gib": ended.peak_gib}
        result["cuts"][name] = {**costs, **timed(cut, full, whole, arguments.seconds)}
        print(line(name, result["cuts"][name]), flush=True)
        save("prune_speed", result)
    print(f"kept in {RESULTS / 'prune_speed.json'}", file=sys.stderr)


def command(name: str, full: Path, out: Path) -> list[str]:
    if name == ONNXSIM:
        return [sys.executable, "-c", PEER, str(full), str(out)]
    return [PROGRAM, "prune", str(full), *CUTS[name], "-o", str(out)]


def full_model() -> Path:
    """ResNet-50 through our export and simplification, made once."""
    path = WORK / "full.onnx"
    if not path.is_file():
        WORK.mkdir(parents=True, exist_ok=True)
        exported = WORK / "exported.onnx"
        command = [PROGRAM, "export", "resnet50:model", "-o", str(exported), "--axis", "x.batch=1,8,8"]
        subprocess.run(command, cwd=HERE, check=True)
        simplify(read_model(exported), path)
    return path


def cost(path: Path) -> dict[str, int]:
    found = model_cost(read_model(path), {"x": (1, 3, 224, 224)})
    return {"macs": found.macs, "parameters": found.parameters}


def timed(cut: Path, full: Path, whole: dict[str, int], seconds: float) -> dict[str, Any]:
    """Costs of a cut, and the medians of interleaved runs with the full graph."""
    rng = np.random.default_rng(0)
    feeds = {batch: {"x": rng.normal(size=(batch, 3, 224, 224)).astype(np.float32)} for batch in BATCHES}
    own, load = cost(cut), os.getloadavg()[0]
    with open_graph(cut) as engine, open_graph(full) as reference:
        speeds = time_pair(engine, reference, feeds, seconds=seconds)
    return {
        **own,
        "macs_reduction": whole["macs"] / own["macs"],
        "load_before": load,
        "batches": {
            str(speed.engine.batch): {
                "full_ms": speed.reference.p50,
                "cut_ms": speed.engine.p50,
                "speedup": speed.speedup,
            }
            for speed in speeds
        },
    }


def line(name: str, row: dict[str, Any]) -> str:
    speeds = ", ".join(
        f"batch {batch} {r['full_ms']:.1f} -> {r['cut_ms']:.1f} ms, {r['speedup']:.2f} times"
        for batch, r in row["batches"].items()
    )
    return (
        f"{name:27} {row['parameters'] / 1e6:6.2f} M parameters, {row['macs'] / 1e9:5.2f} G MACs "
        f"({row['macs_reduction']:.2f} times fewer): {speeds}; cut in {row['cut_s']:.1f} s, {row['peak_gib']:.2f} GiB"
    )


if __name__ == "__main__":
    main()
