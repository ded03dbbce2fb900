"""Whether what was packed lies in a repository already: as the version that is served, or as one that waits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .asked_models import CONFIG, asked_by, config_of_version, named_for, rename_asked
from .modelconfig import parse_config
from .version_folders import BEFORE, STATE, locked
from .versions import served_version, versions


def rolled_back(made: Path, repository: Path) -> dict[str, int]:
    """The versions that hold what was packed and are later than those that are served: a rollback left them.

    Args:
        made: repository with one version of each model.
        repository: what is served.

    Returns:
        By the model that clients ask for; empty unless all others of these serve what was packed.

    Raises:
        StoreError: the repository cannot be read.
    """
    configs = {entry.name: parse_config(entry / CONFIG) for entry in made.iterdir() if (entry / CONFIG).is_file()}
    asked = frozenset[str]().union(*map(asked_by, configs.values()))
    found: dict[str, int] = {}
    with locked(repository):
        for name in sorted(configs.keys() - asked):
            if is_served(made, repository, name, configs):
                continue
            number = _later(made, repository, name, configs)
            if number is None:
                return {}
            found[name] = number
    return found


def is_served(made: Path, repository: Path, name: str, configs: Mapping[str, Any]) -> bool:
    """Whether a model, with those that it asks, is what is served there, as it was packaged."""
    place = repository / name
    if not (place / CONFIG).is_file():
        return False
    return _is_version(made, repository, name, configs, served_version(place, parse_config(place / CONFIG)))


def _later(made: Path, repository: Path, name: str, configs: Mapping[str, Any]) -> int | None:
    place = repository / name
    if not (place / CONFIG).is_file():
        return None
    now = served_version(place, parse_config(place / CONFIG))
    waiting = (n for n in reversed(versions(place)) if n > now and (place / str(n) / CONFIG).is_file())
    return next((number for number in waiting if _is_version(made, repository, name, configs, number)), None)


def _is_version(made: Path, repository: Path, name: str, configs: Mapping[str, Any], number: int) -> bool:
    place, asked = repository / name, sorted(asked_by(configs[name]))
    called = {one: named_for(one, number) for one in asked}
    if not set(called.values()) & asked_by(config_of_version(place, number)):
        called = {one: one for one in asked}  # packaged without --new-version
    return _same_model(made / name, place, number, called) and all(
        _same_served(made / one, repository / there) for one, there in called.items()
    )


def _same_served(made: Path, place: Path) -> bool:
    if not (place / CONFIG).is_file():
        return False
    return _same_model(made, place, served_version(place, parse_config(place / CONFIG)), {})


def _same_model(made: Path, place: Path, number: int, called: Mapping[str, str]) -> bool:
    """Whether this model is that version there, as it was packaged; `called`: what an ensemble asks there instead."""
    fresh, there = parse_config(made / CONFIG), config_of_version(place, number)
    served = number == served_version(place, parse_config(place / CONFIG))
    tuned = (place if served else place / str(number)) / BEFORE
    before = parse_config(tuned) if tuned.is_file() else there
    folders = made / str(served_version(made, fresh)), place / str(number)
    rename_asked(fresh, dict(called))
    for config in (fresh, there, before):
        config.ClearField("version_policy")
        config.ClearField("name")
    return fresh in (there, before) and _contents(folders[0]) == _contents(folders[1])


def _contents(folder: Path) -> dict[str, bytes]:
    from trtcompress_graph.digest import files_digest

    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): files_digest([path]).encode() for path in files if path.name not in STATE}
