"""The MNIST example, built once by the installed program, on fewer samples than it has."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from command_line import program

EXAMPLES = Path(__file__).parents[1] / "examples"


@cache
def mnist_build() -> dict[str, Any]:
    """What `build --json` printed."""
    place = Path(tempfile.mkdtemp(prefix="mnist-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    ran = program(
        *("build", EXAMPLES / "mnist" / "build.yaml", "--out", place, "--store", place / "store", "--json"),
        *("--set", "measure.seconds=0.02", "--set", "data.evaluation.samples=500"),
    )
    assert ran.code == 0, ran.err
    result: dict[str, Any] = ran.json
    return result
