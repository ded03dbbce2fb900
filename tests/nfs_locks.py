"""Locks as they hold between machines that share a folder over NFS."""

from __future__ import annotations

import fcntl
import os
from typing import IO

import pytest


def over_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process lock files that are open for writing, and nothing else: no other lock leaves a machine."""
    lock = fcntl.flock

    def lock_there(file: int | IO[str], operation: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_there)
