"""Versions of a served model: which lie there, and which is served."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any


def versions(folder: Path) -> tuple[int, ...]:
    """The versions of a model that lie there, in order."""
    found = [int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdecimal()]
    return tuple(sorted(number for number in found if number > 0))


def served_version(folder: Path, config: Any) -> int:
    """The greatest version that Triton serves by this configuration; 1 where none lies there."""
    there = versions(folder) or (1,)
    specific = [int(number) for number in config.version_policy.specific.versions]
    return max((number for number in specific if number in there), default=max(there))


def link_or_copy(source: str, target: str) -> None:
    """One file under a second name."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
