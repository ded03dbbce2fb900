"""Repositories that hold more than was packed: versions to go back to, and what `tune` found."""

from __future__ import annotations

import re
from pathlib import Path


def has_versions(repository: Path) -> bool:
    """Whether an exchange of its models would lose what cannot be packed again."""
    from trtcompress_engines.triton.asked_models import asked_in
    from trtcompress_engines.triton.version_folders import BEFORE, TUNING
    from trtcompress_engines.triton.versions import versions

    models = _models(repository)
    if any(
        versions(model) not in ((), (1,)) or any((model / name).is_file() for name in (BEFORE, TUNING))
        for model in models
    ):
        return True
    # A version's own models are called NAME_vN. So may a tower be, but no ensemble asks that
    return bool(models) and any(re.fullmatch(r".+_v\d+", name) for name in asked_in(repository, served=True))


def left_by_rollback(made: Path, repository: Path) -> str:
    """What is to be said where a repository holds the models of a build in versions that a `rollback` left.

    Args:
        made: with the models of one build.
        repository: that has versions.

    Returns:
        Which versions these are and how to switch to them; empty where it is not so.
    """
    from trtcompress_engines.triton.same_version import rolled_back

    found = rolled_back(made, repository)
    if not found:
        return ""
    name = min(found, key=len)  # the others are towers of it, and go with it
    return (
        f"version {found[name]} of {name} in {repository} has this build and is not served, since a rollback left it; "
        f"to serve it: trtcompress rollback {repository} --model {name} --version {found[name]}"
    )


def put_beside(made: Path, repository: Path) -> str:
    """Serve the models of one repository as a new version in another, which keeps as many versions as it has.

    Args:
        made: with the models of one build.
        repository: that has versions.

    Returns:
        What is served now and how to go back; empty where it is served already.

    Raises:
        TrtCompressError: see `add_versions`.
    """
    from trtcompress_engines.triton.switching import KEEP, add_versions, numbers
    from trtcompress_engines.triton.versions import versions

    kept = max((len(versions(model)) for model in _models(repository)), default=0)
    switched = add_versions(made, repository, max(KEEP, kept))
    if all(one.version == one.former for one in switched):
        return ""
    name = min((one.name for one in switched), key=len)  # the others are towers of it, and go with it
    return (
        f"{repository} serves the engine as a new version, not tuned: {numbers(switched)}; "
        f"back to the one before: trtcompress rollback {repository} --model {name}"
    )


def _models(repository: Path) -> list[Path]:
    return [path for path in repository.iterdir() if path.is_dir()] if repository.is_dir() else []
