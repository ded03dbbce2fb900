"""The folder of a served model with several versions: how it is filled and put into its place."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trtcompress_graph.errors import StoreError

from .aside import put_folders, repository_errors
from .asked_models import CONFIG
from .modelconfig import parse_config, to_text
from .versions import link_or_copy, versions

BEFORE = "config.pbtxt.before"
TUNING = "tuning.json"
STATE = (CONFIG, BEFORE, TUNING)
"""Files of a model that belong to the version that is served."""


def fill_with(place: Path, folder: Path, former: int, version: int) -> None:
    """Fill the folder that takes the place of a model, so that another of its versions is served."""
    for number in versions(place):
        link_folder(place / str(number), folder / str(number))
    retire(place, folder / str(former))
    for name in STATE:
        if (folder / str(version) / name).is_file():
            (folder / str(version) / name).rename(folder / name)
    write_config(folder / CONFIG, parse_config(folder / CONFIG), version)
    link_beside(place, folder)


def beside_versions(place: Path) -> list[Path]:
    """What lies in the folder of a model and is of no version alone: labels, data of its warm-up."""
    of_versions = {*STATE, "__pycache__", *map(str, versions(place))}
    return sorted(entry for entry in place.iterdir() if entry.name not in of_versions)


def link_beside(place: Path, folder: Path) -> None:
    """Let the folder that takes the place of a model have what lies beside its versions; links stay what they are."""
    for entry in beside_versions(place):
        if entry.is_symlink():
            (folder / entry.name).symlink_to(entry.readlink())
        elif entry.is_dir():
            link_folder(entry, folder / entry.name)
        else:
            link_or_copy(str(entry), str(folder / entry.name))


def retire(place: Path, version: Path) -> None:
    """What belongs to the version that is served goes into its folder."""
    for name in STATE:
        if (place / name).is_file():
            shutil.copyfile(place / name, version / name)


def write_config(path: Path, config: Any, version: int) -> None:
    """Write a configuration by which that version is served."""
    config.ClearField("version_policy")
    config.version_policy.specific.versions.append(version)
    path.unlink(missing_ok=True)  # it may be a link to a file that is served
    path.write_text(to_text(config), encoding="utf-8")


def link_folder(source: Path, target: Path) -> None:
    """The same files under another name, and copies where the file system has no links."""
    shutil.copytree(source, target, copy_function=link_or_copy, ignore=shutil.ignore_patterns("__pycache__"))


@contextmanager
def written(places: Sequence[Path]) -> Iterator[list[Path]]:
    """Folders to fill that take their places together (see `put_folders`).

    Raises:
        StoreError: one cannot be written.
    """
    with repository_errors(places[0]), put_folders(places) as folders:
        yield folders


@contextmanager
def locked(repository: Path) -> Iterator[None]:
    """One writer of versions at a time: each reads what is there before it writes."""
    try:
        repository.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(repository, os.O_RDONLY)
    except OSError as error:
        raise StoreError(f"no folder of models: {error.strerror or error}", where=str(repository)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
