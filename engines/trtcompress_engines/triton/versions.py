"""Versions of a served model: which lie there, and which is served."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

_NUMBER = re.compile("[1-9][0-9]*").fullmatch


def versions(folder: Path) -> tuple[int, ...]:
    """The versions of a model that lie there, in order; Triton passes over numbers that begin with a zero."""
    return tuple(sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and _NUMBER(entry.name)))


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
