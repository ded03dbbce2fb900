"""Methods of prune_accuracy.py; a peer's runs as `python prune_methods.py METHOD TASK FOLD KEPT FULL.onnx OUT.onnx`."""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS = {
    "torch-pruning": "torch-pruning",
    "torch-pruning+bn": "torch-pruning",
    "onnxsim": "onnxsim",
    "onnxsim-wanda": "onnxsim",
}
"""Peers' methods, and the package of each."""

OURS = {
    "trtcompress": (),
    "trtcompress-l2": ("--importance", "l2", "--allocation", "uniform", "--no-reconstruct"),
}
"""Our methods, and the options of `trtcompress prune` beyond budget and data."""


def command(method: str, task: str, fold: int, kept: float, full: Path, samples: Path, out: Path) -> list[str]:
    """What to run for a method."""
    if method in OURS:
        program = str(Path(sys.executable).with_name("trtcompress"))
        budget = ["--macs", str(kept), "--data", str(samples)]  # costs are counted at the first sample's shape
        return [program, "prune", str(full), *budget, *OURS[method], "-o", str(out), "--json"]
    return [sys.executable, __file__, method, task, str(fold), str(kept), str(full), str(out)]


def missing(method: str) -> str:
    """How to get what a method needs, or nothing."""
    if method in OURS:
        return ""
    try:
        version(PEERS[method])
    except PackageNotFoundError:
        return f"{PEERS[method]} is not installed: see benchmarks/requirements.txt"
    return ""


def main(method: str, task_name: str, fold: str, kept: str, full: str, out: str) -> None:
    from tasks import find_task

    task = find_task(task_name)
    samples = task.calibration(int(fold))
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "cut.onnx"
        if method.startswith("torch-pruning"):
            from torch_peer import torch_pruning

            torch_pruning(task, float(kept), samples, cut, recalibrate=method.endswith("+bn"))
        else:
            from onnxsim_peer import onnxsim

            onnxsim(Path(full), float(kept), list(samples), cut, wanda=method.endswith("wanda"))
        simplified(cut, Path(out))


def simplified(path: Path, out: Path) -> Any:
    """As our own export leaves a graph, so that costs compare."""
    from trtcompress_graph.load import read_model
    from trtcompress_graph.simplify import simplify

    return simplify(read_model(path), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
