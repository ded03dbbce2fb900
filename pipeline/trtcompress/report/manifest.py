"""manifest.json: what made this build and what it consists of."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..assemble import Placed
from ..config import Loaded
from ..digests import library_version
from ..fingerprint import device

if TYPE_CHECKING:
    from ..api import Built

LIBRARIES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "numba", "polygraphy")
INPUTS = ("model", "calibration", "evaluation", "prune_plan", "postprocess")
GPU_LIBRARIES = ("tensorrt", "tensorrt-rtx-cu13-bindings", "pycuda")


def manifest(built: Built, loaded: Loaded, placed: Placed) -> dict[str, Any]:
    """Digests, versions, config, revision, targets and the machine.

    An engine whose bytes differ from build to build says `reproducible: false`; its graph's digest stands for it.
    """
    given = built.plan.given
    engines = [
        {
            "target": candidate.engine.target,
            "encoding": candidate.engine.encoding,
            "sha256": candidate.engine.digest,
            "reproducible": candidate.engine.reproducible,
            "graph_sha256": candidate.engine.graph.digest,
        }
        for validation in built.validations.values()
        for candidate in validation.candidates
    ]
    return {
        "name": built.plan.name,
        "trtcompress": __version__,
        "config": loaded.config.model_dump(mode="json"),
        "revision": _revision(loaded.base),
        "inputs": {name: given[name, ""].digest for name in INPUTS if given[name, ""] is not None},
        "metrics": {metric.name: metric.digest for metric in given["metrics", ""]},
        "versions": {name: library_version(name) for name in (*LIBRARIES, *GPU_LIBRARIES)},
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), **device()},
        "targets": [target.name for target in built.plan.targets],
        "engines": engines,
        "stages": [
            {"stage": ran.step.stage.name, "subject": ran.step.subject, "fingerprint": ran.key}
            for ran in built.run.steps
        ],
        "files": dict(placed.files),
    }


def _revision(folder: Path) -> str | None:
    """Git revision of the config's folder, with `+changes` where the working tree differs from it."""
    try:
        asked = ("git", "-C", str(folder))
        head = subprocess.run([*asked, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        status = subprocess.run(
            [*asked, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")
