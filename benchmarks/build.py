"""What a build costs beside the work that it cannot avoid: MobileNetV2, INT8, 128 images, `cpu` and two RTX cards.

    TRTCOMPRESS_DATA=/path/to/data python benchmarks/build.py [--runs 3] [--seconds 0.5]

Three builds are timed as whole processes: cold (empty store), again with nothing changed, and with one target changed.
Beside each stage of the cold build stands the time that the stage's unavoidable work takes alone, in `floors.py`:
imports, the exporter's call, bare forward passes, session creation, builder calls. Results go to
`results/build.json`; every figure is the median over the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from machine import describe, save

HERE = Path(__file__).parent
CONFIG = """
name: mobilenet
model: {source: "mobilenet_v2:model", inputs: {x: {batch: [1, 4, 8]}}}
data:
  calibration: {source: "mobilenet_v2:calibration", samples: 128}
  evaluation: {source: "mobilenet_v2:evaluation"}
metric: [top1]
targets: [cpu, rtx-3090, TARGET]
gates: {max_metric_drop: 0.05, min_cosine: 0.5}
measure: {seconds: SECONDS}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of timing per batch size and engine")
    arguments = parser.parse_args()
    runs = []
    for number in range(arguments.runs):
        with tempfile.TemporaryDirectory(prefix="trtcompress-bench-") as folder:
            runs.append(one_run(Path(folder), arguments.seconds))
        print(f"run {number + 1}: {summary(runs[-1])}", file=sys.stderr)
    result = {
        "what": __doc__.splitlines()[0],
        "machine": describe("torch", "onnx", "onnxruntime", "polygraphy", "tensorrt-rtx-cu13-bindings"),
        "seconds_of_timing": arguments.seconds,
        "runs": runs,
        **medians(runs),
    }
    print(json.dumps({key: value for key, value in result.items() if key != "runs"}, indent=1))
    print(f"kept in {save('build', result)}", file=sys.stderr)


def one_run(folder: Path, seconds: float) -> dict[str, Any]:
    """Three builds and the floors, in a folder of its own."""
    (folder / "mobilenet_v2.py").symlink_to(HERE / "mobilenet_v2.py")
    for name, target in (("first", "rtx-4090"), ("other", "rtx-5090")):
        text = CONFIG.replace("TARGET", target).replace("SECONDS", str(seconds))
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    cold, stages = build(folder, "first.yaml")
    again, _ = build(folder, "first.yaml")
    one_target, changed = build(folder, "other.yaml")
    floors = subprocess.run(
        [sys.executable, str(HERE / "floors.py"), str(folder), str(seconds)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {
        "cold_s": cold,
        "rebuild_s": again,
        "one_target_s": one_target,
        "one_target_ran": [label for label, stage in changed.items() if not stage["reused"]],
        "stages": {label: stage["seconds"] for label, stage in stages.items()},
        "floors": json.loads(floors.stdout),
    }


def build(folder: Path, config: str) -> tuple[float, dict[str, Any]]:
    """Seconds of one build as a process, and its stages."""
    command = [str(Path(sys.executable).with_name("trtcompress")), "build", config, "--quiet", "--store", "store"]
    # As on a user's machine: Python keeps what it compiled
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment)
    seconds = time.perf_counter() - started
    report = json.loads((folder / "build/mobilenet/report.json").read_text(encoding="utf-8"))
    return seconds, {f"{s['stage']} {s['subject']}".strip(): s for s in report["stages"]}


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the runs; the ratio is that of cold build and floors, run by run."""
    stages = {
        label: {
            "seconds": median(run["stages"][label] for run in runs),
            "floor": median(run["floors"].get(label, 0.0) for run in runs),
        }
        for label in runs[0]["stages"]
    }
    return {
        **{key: median(run[key] for run in runs) for key in ("cold_s", "rebuild_s", "one_target_s")},
        "floor_s": median(sum(run["floors"].values()) for run in runs),
        "cold_over_floor": median(run["cold_s"] / sum(run["floors"].values()) for run in runs),
        "stages": stages,
    }


def summary(run: dict[str, Any]) -> str:
    floor = sum(run["floors"].values())
    return (
        f"cold {run['cold_s']:.1f} s, unavoidable {floor:.1f} s ({run['cold_s'] / floor:.2f} times), "
        f"again {run['rebuild_s']:.2f} s, one target {run['one_target_s']:.1f} s"
    )


if __name__ == "__main__":
    main()
