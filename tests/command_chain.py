"""Every command of the command line on files, one after another, from a PyTorch module to a served folder."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from command_line import Ran, done

NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16 * 8 * 8, 10)

    def forward(self, x):
        return {"logits": self.fc(torch.relu(self.bn(self.conv(x))).flatten(1))}


def model():
    return Net().eval(), {"x": torch.zeros(2, 1, 8, 8)}
"""

TARGETS = ("cpu", "rtx-4090")
AXIS = ("--axis", "x.batch=1,4,8")


@dataclass(frozen=True)
class Chain:
    """What each command left in the folder, and what it printed with --json, by name."""

    folder: Path
    ran: Mapping[str, Ran]


@cache
def chain() -> Chain:
    folder = Path(tempfile.mkdtemp(prefix="chain-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "chain_network.py").write_text(NETWORK)
    ran: dict[str, Ran] = {}

    def run(name: str, *args: object) -> None:
        ran[name] = done(name.partition(" ")[0], *args, "--json", cwd=folder)

    run("export", "chain_network:model", "-o", "exported.onnx", *AXIS)
    samples = np.random.default_rng(3).normal(size=(40, 1, 8, 8)).astype(np.float32)
    np.savez(folder / "samples.npz", x=samples, labels=_answers(samples))
    run("simplify", "exported.onnx", "-o", "simple.onnx")
    run("inspect", "simple.onnx")
    run(
        "prune",
        *("simple.onnx", "--macs", "0.63", "--multiple", "1", "--data", "samples.npz"),
        *("--plan", "prune.json", "-o", "pruned.onnx"),
    )
    run("inspect groups", "simple.onnx", "--groups")
    run("calibrate", "simple.onnx", "--data", "samples.npz", "-o", "ranges.json")
    run("sensitivity", "simple.onnx", "--data", "samples.npz", "--ranges", "ranges.json")
    for target in TARGETS:
        run(f"quantize {target}", "simple.onnx", "--ranges", "ranges.json", "--target", target, "-o", f"{target}.onnx")
        run(f"compile {target}", f"{target}.onnx", "--target", target, *AXIS, "-o", f"engine-{target}")
        run(
            f"validate {target}",
            *(f"engine-{target}", "--reference", "exported.onnx", "--data", "samples.npz", "--metric", "top1"),
            *("--seconds", "0.01", "--max-metric-drop", "0.2", *AXIS),
        )
    run(
        "build",
        *("exported.onnx", "--data", "samples.npz", "--out", "build", "--store", "store"),
        *("--target", "cpu", "--target", "rtx-4090", "--set", "model.inputs.x.batch=[1, 4, 8]"),
        *("--set", "measure.seconds=0.01", "--set", "gates={max_metric_drop: 0.2, min_cosine: 0.9}"),
    )
    run("package", "build/exported", "--format", "triton", "-o", "repository")
    return Chain(folder, ran)


def _answers(samples: np.ndarray) -> np.ndarray:
    """The classes that PyTorch gives."""
    import torch

    space: dict[str, object] = {}
    exec(NETWORK, space)
    module, _ = space["model"]()  # type: ignore[operator]
    with torch.no_grad():
        classes: np.ndarray = module(torch.from_numpy(samples))["logits"].argmax(1).numpy()
    return classes
