"""Versions of a served model side by side: a new one beside the old, switched in one step, and back again.

`config.pbtxt` says by `version_policy` which one is served. What belongs to a version that is not served (its
`config.pbtxt`, `tuning.json`) waits in its folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtcompress_graph.errors import StoreError, UsageError

from .aside import put_folder
from .modelconfig import parse_config, to_text
from .versions import link_or_copy, served_version, versions

CONFIG = "config.pbtxt"
BEFORE = "config.pbtxt.before"
TUNING = "tuning.json"
STATE = (CONFIG, BEFORE, TUNING)
"""Files of a model that belong to the version that is served."""

STEPS = "steps.json"
"""In a version of an ensemble: which versions of the models that it asks came with it."""

KEEP = 2


@dataclass(frozen=True, slots=True)
class Switched:
    """Which version of a model is served now, which was before (0: none), and which lie there."""

    name: str
    version: int
    former: int
    versions: tuple[int, ...]


def add_versions(made: Path, repository: Path, keep: int = KEEP) -> list[Switched]:
    """Put the models of one repository as new versions into another.

    Each model switches in one step; a server that polls sees the old version or the new one. Where all are what is
    served already, byte for byte, nothing changes. Else each gets a new version, so that an ensemble and its towers go
    back together.

    Args:
        made: repository with one version of each model.
        repository: what is served; made if it is missing.
        keep: versions to leave there, the new one and the one before it included.

    Raises:
        UsageError: `keep` is less than 1.
        StoreError: the repository cannot be written.
    """
    if keep < 1:
        raise UsageError(f"{keep} versions cannot be kept", where="--keep", hint="--keep 2")
    folders = sorted(entry for entry in made.iterdir() if (entry / CONFIG).is_file())
    with _locked(repository):
        if all(_same(folder, repository / folder.name) for folder in folders):
            return [_as_it_is(repository / folder.name) for folder in folders]
        # Towers first: an ensemble is loaded with what it asks.
        folders.sort(key=lambda folder: parse_config(folder / CONFIG).platform == "ensemble")
        added: list[Switched] = []
        for folder in folders:
            added.append(_add(folder, repository / folder.name, keep, added))
        return added


def roll_back(repository: Path, name: str, version: int | None = None) -> list[Switched]:
    """Serve the version before, or a certain one; of an ensemble those of the models that came with it, too.

    Raises:
        UsageError: there is no such version.
        StoreError: the repository cannot be written.
    """
    with _locked(repository):
        wanted = _wanted(repository / name, version)
        steps = _steps(repository / name, wanted, version)
        chosen = {model: _wanted(repository / model, number) for model, number in steps.items()}
        return [_serve(repository / model, number) for model, number in {**chosen, name: wanted}.items()]


def _steps(folder: Path, version: int, asked: int | None) -> dict[str, int | None]:
    """The models that a version of an ensemble asks, with theirs; None: the one before. None of any other model."""
    note = folder / str(version) / STEPS
    if note.is_file():
        return {str(model): int(number) for model, number in json.loads(note.read_text(encoding="utf-8")).items()}
    kept = folder / str(version) / CONFIG
    config = parse_config(kept if kept.is_file() else folder / CONFIG)
    return {step.model_name: asked for step in config.ensemble_scheduling.step}


def _wanted(folder: Path, version: int | None) -> int:
    there = versions(folder)
    now = served_version(folder, parse_config(folder / CONFIG))
    earlier = [number for number in there if number < now]
    listed = f"there are: {', '.join(map(str, there))}; served: {now}"
    if version is None:
        if not earlier:
            hint = "a build packed with --new-version leaves the version before"
            raise UsageError(f"there is no version before {now}; {listed}", where=str(folder), hint=hint)
        version = max(earlier)
    if version not in there:
        raise UsageError(f"there is no version {version}; {listed}", where=str(folder), hint=f"--version {now}")
    if version != now and not (folder / str(version) / CONFIG).is_file():
        raise UsageError(
            f"version {version} has no {CONFIG} of its own, so that nobody knows how it was served",
            where=str(folder / str(version)),
            hint="package that build again",
        )
    return version


def _add(made: Path, place: Path, keep: int, before: Sequence[Switched]) -> Switched:
    """One more version; `before` are the models that were added already, among them those that an ensemble asks."""
    there = versions(place) if place.is_dir() else ()
    former = served_version(place, parse_config(place / CONFIG)) if (place / CONFIG).is_file() else 0
    new = max(there, default=0) + 1
    others = sorted((number for number in there if number != former), reverse=True)
    kept = [number for number in (former, *others) if number][: keep - 1]
    config = parse_config(made / CONFIG)
    version = served_version(made, config)
    with _written(place) as folder:
        for number in kept:
            _link(place / str(number), folder / str(number))
        if former in kept:
            _retire(place, folder / str(former))
        shutil.copytree(made / str(version), folder / str(new))
        asked = {step.model_name for step in config.ensemble_scheduling.step}
        if came := {one.name: one.version for one in before if one.name in asked}:
            (folder / str(new) / STEPS).write_text(json.dumps(came, sort_keys=True), encoding="utf-8")
        _write(folder / CONFIG, config, new)
    return Switched(place.name, new, former, tuple(sorted((*kept, new))))


def _serve(place: Path, version: int) -> Switched:
    former = served_version(place, parse_config(place / CONFIG))
    if version != former:
        with _written(place) as folder:
            for number in versions(place):
                _link(place / str(number), folder / str(number))
            _retire(place, folder / str(former))
            for name in STATE:
                if (folder / str(version) / name).is_file():
                    (folder / str(version) / name).rename(folder / name)
            _write(folder / CONFIG, parse_config(folder / CONFIG), version)
    return Switched(place.name, version, former, versions(place))


def _as_it_is(place: Path) -> Switched:
    now = served_version(place, parse_config(place / CONFIG))
    return Switched(place.name, now, now, versions(place))


def _same(made: Path, place: Path) -> bool:
    """Whether this model is what is served there, as it was packaged."""
    if not (place / CONFIG).is_file():
        return False
    fresh, served = parse_config(made / CONFIG), parse_config(place / CONFIG)
    folders = made / str(served_version(made, fresh)), place / str(served_version(place, served))
    before = parse_config(place / BEFORE) if (place / BEFORE).is_file() else served
    for config in (fresh, served, before):
        config.ClearField("version_policy")
    return fresh in (served, before) and _contents(folders[0]) == _contents(folders[1])


def _contents(folder: Path) -> dict[str, bytes]:
    from trtcompress_graph.digest import files_digest

    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {
        str(path.relative_to(folder)): files_digest([path]).encode()
        for path in files
        if path.name not in (*STATE, STEPS)
    }


def _retire(place: Path, version: Path) -> None:
    """What belongs to the version that is served goes into its folder."""
    for name in STATE:
        if (place / name).is_file():
            shutil.copyfile(place / name, version / name)


def _write(path: Path, config: Any, version: int) -> None:
    config.ClearField("version_policy")
    config.version_policy.specific.versions.append(version)
    path.unlink(missing_ok=True)  # it may be a link to a file that is served
    path.write_text(to_text(config), encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    """The same files under another name, and copies where the file system has no links."""
    shutil.copytree(source, target, copy_function=link_or_copy, ignore=shutil.ignore_patterns("__pycache__"))


@contextmanager
def _written(place: Path) -> Iterator[Path]:
    try:
        with put_folder(place) as folder:
            yield folder
    except OSError as error:
        raise StoreError(
            f"the model repository cannot be written: {error.strerror or error}",
            where=str(place),
            hint="free some space",
        ) from error


@contextmanager
def _locked(repository: Path) -> Iterator[None]:
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


def numbers(switched: Sequence[Switched]) -> str:
    """For people: `mnist 1 -> 2`."""
    return ", ".join(
        f"{one.name} {one.version} as before"
        if one.version == one.former
        else f"{one.name} {one.former} -> {one.version}"
        for one in switched
    )
