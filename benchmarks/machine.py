"""What a result was measured on."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trtcompress_engines.cpu import cpu_features

RESULTS = Path(__file__).parent / "results"


def describe(*libraries: str) -> dict[str, Any]:
    """Machine, commit and library versions."""
    cpu = cpu_features()
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return {
        "cpu": cpu.name,
        "flags": list(cpu.flags),
        "cores": cpu.cores,
        "memory_gib": round(int(memory.split()[1]) / 2**20, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": head.stdout.strip() or None,
        "libraries": {name: version(name) for name in libraries},
    }


def results(name: str) -> dict[str, Any]:
    """What was kept as `results/NAME.json`; nothing where there is no such file."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def save(name: str, result: dict[str, Any]) -> Path:
    """Keep a result as `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path
