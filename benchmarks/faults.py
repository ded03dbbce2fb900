"""False alarms: clean builds, of which not one may fail a gate, be refused or be called doubtful.

    python benchmarks/faults.py [--builds 100]

Models (the trained MNIST net, networks that are trained for a second, random convolutions, perceptrons and
transformers), splits of the samples, range methods and targets are drawn by a seed each (`tests/clean_builds.py`).
Each build is kept at once in `results/faults.json` with the commit that it ran on, so that the same command goes on
after it was stopped. The faults themselves are `tests/pipeline/test_faults.py`. Exit code 1 where an alarm was raised.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from clean_builds import clean_build
from machine import RESULTS, describe, save


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--builds", type=int, default=100)
    arguments = parser.parse_args()
    machine = describe("onnxruntime", "onnx-ir", "tensorrt-rtx-cu13-bindings")
    result = kept(machine["commit"]) or {"machine": machine, "commit": machine["commit"], "builds": {}}
    for seed in range(arguments.builds):
        if str(seed) not in result["builds"]:
            with tempfile.TemporaryDirectory(prefix="trtcompress-clean-") as folder:
                result["builds"][str(seed)] = clean_build(seed, Path(folder))
            save("faults", result)
        print(f"{seed}: {told(result['builds'][str(seed)])}", file=sys.stderr)
    alarms = {seed: found["alarms"] for seed, found in result["builds"].items() if found["alarms"]}
    print(json.dumps({"builds": len(result["builds"]), "false_alarms": len(alarms), "alarms": alarms}))
    return 1 if alarms else 0


def kept(commit: str | None) -> dict[str, Any] | None:
    """What was kept of this commit."""
    path = RESULTS / "faults.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found if found and found["commit"] == commit else None


def told(found: dict[str, Any]) -> str:
    what = f"{found['model']}, {found['method']}, {' and '.join(found['targets'])}"
    return f"{what}, {found['seconds']:.1f} s: {'; '.join(found['alarms']) or 'nothing said'}"


if __name__ == "__main__":
    sys.exit(main())
