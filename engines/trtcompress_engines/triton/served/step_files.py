"""What a step before or after the engine is made of: a JSON file with digests of the programs that lie beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


class Step:
    """What the runners of steps have in common.

    Args:
        path: the description of the step.
        parameters: of `config.pbtxt`; not needed here.
        args: what Triton says about the instance; not needed here.

    Raises:
        ValueError: a file is not the one that was packaged.
    """

    def __init__(self, path: Path, parameters: dict[str, str], args: dict[str, str]) -> None:
        self.step = read_step(path)

    def greatest_batch(self) -> int | None:
        """None: it takes any."""
        return None

    def close(self) -> None:
        """Nothing is held."""


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
