"""Outputs of an engine, kept for `trtcompress import-results`: a metric of the user's own is computed there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .kit import digest

FOLDER = "outputs"
PREFIX = "output/"
"""Before the name of each array: numpy has parameters of its own beside them, such as `file`."""


def keep(folder: Path, engine: str, index: int, golden: str, outputs: Mapping[str, Any]) -> dict[str, str]:
    """Write the outputs of one golden batch to `FOLDER/ENGINE/INDEX.npz` in `folder`.

    Args:
        folder: of results.json.
        engine: its name.
        index: of the golden batch.
        golden: digest of that batch, as the kit has it.
        outputs: of the real samples, by name.

    Returns:
        What results.json says of the file.

    Raises:
        OSError: it cannot be written.
    """
    name = f"{FOLDER}/{engine}/{index:04}.npz"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".partial.npz")
    np.savez(str(aside), **{PREFIX + str(key): np.asarray(value) for key, value in outputs.items()})  # type: ignore[arg-type]
    aside.replace(path)
    return {"golden": golden, "path": name, "sha256": digest(path)}
