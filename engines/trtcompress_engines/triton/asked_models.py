"""Which models the ensembles of a repository ask, in each of their versions.

Each version of an ensemble asks models of its own, `NAME_vN`: Triton has one configuration for all versions of a model,
and loads the models of an ensemble one after another. So a new version of models that are served could neither have
another shape, nor be put beside the old one without a moment in which an ensemble asks both.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from trtcompress_graph.errors import RepositoryError

from .aside import repository_errors, take_away
from .modelconfig import parse_config
from .versions import served_version, versions

CONFIG = "config.pbtxt"

LEFT = ".left-models"
"""In a repository: models of versions that no ensemble asks, or not yet, one a line: no others are removed."""

LOADED_SECONDS = 600.0
"""Younger models are not removed: Triton's python backend hangs for ever, and with it a server that polls, when the
folder of a model vanishes while it is loaded."""


def is_ensemble(config: Any) -> bool:
    """Whether a model is nothing but the order in which it asks others."""
    return bool(config.platform == "ensemble")


def asked_by(config: Any) -> frozenset[str]:
    """The models that an ensemble asks; of any other model none."""
    return frozenset(step.model_name for step in config.ensemble_scheduling.step)


def named_for(name: str, version: int) -> str:
    """What a model is called that version `version` of an ensemble asks."""
    return f"{name}_v{version}"


def rename_asked(config: Any, names: dict[str, str]) -> None:
    """Let an ensemble ask other models instead."""
    for step in config.ensemble_scheduling.step:
        step.model_name = names.get(step.model_name, step.model_name)


def config_of_version(folder: Path, version: int) -> Any:
    """The configuration with which a version is served; one that is not served has its own in its folder."""
    kept = folder / str(version) / CONFIG
    served = parse_config(folder / CONFIG)
    return parse_config(kept) if kept.is_file() and version != served_version(folder, served) else served


def asked_in(repository: Path, *, served: bool) -> frozenset[str]:
    """The models that ensembles ask in the version that is served; or in those beside it, for going back."""
    found: set[str] = set()
    for folder in _models(repository):
        now = served_version(folder, parse_config(folder / CONFIG))
        for version in versions(folder):
            if (version == now) == served:
                found |= asked_by(config_of_version(folder, version))
    return frozenset(found)


def along_with(repository: Path, name: str, version: int) -> dict[str, int]:
    """The other ensembles that ask only what this version of an ensemble asks, and in which version they do."""
    wanted = asked_by(config_of_version(repository / name, version))
    found: dict[str, int] = {}
    for folder in _models(repository):
        for number in versions(folder):
            asked = asked_by(config_of_version(folder, number))
            if folder.name != name and asked and asked <= wanted:
                found[folder.name] = number
    return found


def greatest_number(repository: Path, names: Iterable[str]) -> int:
    """The greatest number by which anything there is called as a version of one of these models; 0 where nothing is."""
    called = re.compile(rf"(?:{'|'.join(map(re.escape, names)) or '(?!)'})_v(\d+)")
    return max((int(match[1]) for entry in repository.iterdir() if (match := called.fullmatch(entry.name))), default=0)


def sweep(repository: Path, dropped: Iterable[str], clients: Iterable[str]) -> None:
    """Remove models that no version of an ensemble asks any more, but for those that a server may be loading.

    A name alone does not tell whose a model is: only what a version asked, or what is noted in `LEFT`, is removed.

    Args:
        repository: folder of models.
        dropped: models that were asked by versions that are gone; they need not be there.
        clients: models that clients ask for, which stay in any case.
    """
    called = _noted(repository) | set(dropped)
    if not called:
        return
    needed = asked_in(repository, served=True) | asked_in(repository, served=False) | set(clients)
    left = [folder for folder in _models(repository) if folder.name in called - needed]
    for folder in left:
        with suppress(OSError):  # what stays costs memory; it is looked for again at the next switch
            if _age(folder) > LOADED_SECONDS:
                take_away(folder)
    with suppress(OSError):  # the switch is done; the note says more than is left
        _note(repository, [folder.name for folder in left if folder.is_dir()])


def will_put(repository: Path, names: Iterable[str]) -> None:
    """Note models before they are put for a switch: it may fail, and a server may be loading them by then.

    Raises:
        StoreError: the note cannot be written.
    """
    with repository_errors(repository / LEFT):
        _note(repository, sorted({*names, *_noted(repository)}))


def _noted(repository: Path) -> set[str]:
    try:
        return set((repository / LEFT).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return set()


def _note(repository: Path, names: Iterable[str]) -> None:
    text = "".join(f"{name}\n" for name in names)
    if not text:
        (repository / LEFT).unlink(missing_ok=True)
        return
    aside = repository / f"{LEFT}.new"
    aside.write_text(text, encoding="utf-8")
    aside.replace(repository / LEFT)


def _age(folder: Path) -> float:
    """Seconds since it was put there or its configuration was written."""
    return time.time() - max(folder.stat().st_ctime, (folder / CONFIG).stat().st_mtime)


def _models(repository: Path) -> list[Path]:
    found = []
    for folder in sorted(entry for entry in repository.iterdir() if (entry / CONFIG).is_file()):
        with suppress(RepositoryError):  # a damaged configuration of another model is not ours to judge
            parse_config(folder / CONFIG)
            found.append(folder)
    return found
