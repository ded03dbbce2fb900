"""Digests of model files: SHA-256 over the `.onnx` and the external data that it refers to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_CHUNK = 1 << 20


def files_digest(paths: Iterable[Path]) -> str:
    """SHA-256 (hex) over the bytes of the files, one after the other, read in pieces."""
    sha = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                sha.update(buffer[:count])
    return sha.hexdigest()


def model_digest(path: Path, external: Iterable[str]) -> str:
    """Digest of a model.

    Args:
        path: the `.onnx` file.
        external: locations of its external data, relative to the folder of `path`.
    """
    return files_digest([path, *(path.parent / location for location in sorted(set(external)))])
