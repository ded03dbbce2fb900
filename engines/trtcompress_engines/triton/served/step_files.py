"""What a step before or after the engine is made of: a JSON file with digests of the programs that lie beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def read_step(path: Path) -> Any:
    """The description of a step.

    Raises:
        ValueError: a program beside it is not the one that was packaged.
    """
    step = json.loads(path.read_text(encoding="utf-8"))
    for name, digest in step["files"].items():
        file = path.parent / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise ValueError(f"{name} is not the file that was packaged: package the model again")
    return step
