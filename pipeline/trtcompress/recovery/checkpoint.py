"""States of a training on disk: written aside, flushed and renamed, so that a kill leaves the one before."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..digests import digest_of
from ..files import write_text

KEY = "key.json"


def save(state: Any, path: Path) -> None:
    """Write a state."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)


def load(path: Path) -> Any | None:
    """A state, on the CPU; None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises whatever it meets in a damaged file
        return None


def open_folder(folder: Path, facts: dict[str, Any]) -> bool:
    """Make the folder of a training; what lies there goes on only where it is of the same training.

    Args:
        folder: of the checkpoints.
        facts: all that the training depends on.

    Returns:
        Whether there was one to go on with.
    """
    key = digest_of(facts)
    file = folder / KEY
    try:
        known = bool(json.loads(file.read_text(encoding="utf-8")) == key)
    except (OSError, ValueError):
        known = False
    if not known:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_text(file, json.dumps(key))
    return known


def cloned(state: Any) -> Any:
    """The same state in memory of its own."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: cloned(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(cloned(value) for value in state)
    return state
