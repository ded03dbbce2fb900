"""Repositories that hold more than was packed: versions to go back to, and what `tune` found."""

from __future__ import annotations

from pathlib import Path


def has_versions(repository: Path) -> bool:
    """Whether an exchange of its models would lose what cannot be packed again."""
    from trtcompress_engines.triton.version_folders import BEFORE, TUNING
    from trtcompress_engines.triton.versions import versions

    models = [path for path in repository.iterdir() if path.is_dir()] if repository.is_dir() else []
    return any(
        versions(model) not in ((), (1,)) or any((model / name).is_file() for name in (BEFORE, TUNING))
        for model in models
    )
