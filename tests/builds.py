"""Small builds, run in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trtcompress.api import BuildOptions, Built, build_all
from trtcompress.config_file import load_config
from trtcompress.plan import Plan, Step

CONFIG = """\
name: small
model: {source: model.onnx, inputs: {x: {batch: [1, 2, 4]}}}
data: {calibration: samples.npz}
quantize: {method: minmax}
targets: [TARGETS]
gates: {min_cosine: 0.9}
measure: {seconds: 0.01, batches: [2], threads: 1}
package: [triton]
"""
"""INT8 alone, since the choice between INT8 and float is measured and may fall differently each time."""


def project(folder: Path, targets: Sequence[str] = ("cpu:int8",), name: str = "small") -> Path:
    """A folder with a small convolutional network, samples with labels, and the config, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.normal(size=(8, 3, 3, 3)) * 0.3,
        "conv.bias": np.zeros(8),
        "fc.weight": rng.normal(size=(8, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "fc.weight"], ["logits"], name="fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "model.onnx"
    )
    write_samples(folder / "samples.npz", seed=1)
    config = folder / "build.yaml"
    text = CONFIG.replace("TARGETS", ", ".join(targets)).replace("name: small", f"name: {name}")
    config.write_text(text, encoding="utf-8")
    return config


def write_samples(path: Path, seed: int, count: int = 12) -> Path:
    rng = np.random.default_rng(seed)
    np.savez(path, x=rng.normal(size=(count, 3, 8, 8)).astype(np.float32), labels=rng.integers(0, 5, count))
    return path


@dataclass
class Heard:
    """A listener that notes which steps worked and which were reused."""

    worked: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)

    def planned(self, plan: Plan) -> None:
        pass

    def started(self, step: Step) -> None:
        pass

    def progressed(self, step: Step, done: int, total: int | None) -> None:
        pass

    def finished(self, step: Step, seconds: float, reused: bool) -> None:
        (self.reused if reused else self.worked).append(step.label)


def build(
    config: Path, folder: Path, *overrides: str, store: Path | None = None, **options: Any
) -> tuple[Built, Heard]:
    """Build in this process: `folder/out/<name>` with the store `folder/store`."""
    heard = Heard()
    chosen = BuildOptions(out=folder / "out", store=store or folder / "store", **options)
    return build_all(load_config(config, overrides), chosen, heard), heard


def start(
    config: Path,
    folder: Path,
    *arguments: str,
    store: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start the command line for the same build, in a process group of its own."""
    command = [str(Path(sys.executable).with_name("trtcompress")), "build", str(config), "--out", str(folder / "out")]
    return subprocess.Popen(
        [*command, "--store", str(store or folder / "store"), "--json", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )


def manifest(build_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((build_dir / "manifest.json").read_text(encoding="utf-8"))
    return found


def promised(build_dir: Path) -> dict[str, str]:
    """Digest of each file of a build that another build has to give too.

    That is all but the plans that say `reproducible: false` and the notes that name their digests; for these the
    digest of the graph that they were made of stands in.
    """
    facts = manifest(build_dir)
    unstable = {engine["sha256"]: engine for engine in facts["engines"] if not engine["reproducible"]}
    found = {name: state["sha256"] for name, state in facts["files"].items()}
    for name in [name for name, digest in found.items() if digest in unstable]:
        del found[name]
        found.pop(f"{name}.sha256", None)
    for engine in unstable.values():
        place = f"{engine['target']}/{engine['encoding']}"
        del found[f"engines/{place}/engine.json"]
        found[f"graph of {place}"] = engine["graph_sha256"]
    return found
