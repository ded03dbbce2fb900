"""Versions of a served model side by side: a new one beside the old, switched in one step, and back again.

`config.pbtxt` says by `version_policy` which one is served. What belongs to a version that is not served (its
`config.pbtxt`, `tuning.json`) waits in its folder. The models that an ensemble asks are its version's own
(`asked_models.py`): they stand beside those of the version before, so that an ensemble switches in one step too.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtcompress_graph.errors import UsageError

from .asked_models import (
    CONFIG,
    along_with,
    asked_by,
    config_of_version,
    greatest_number,
    is_ensemble,
    named_for,
    rename_asked,
    sweep,
    will_put,
)
from .check import check_repository
from .modelconfig import parse_config, to_text
from .same_version import is_served
from .version_folders import fill_with, link_beside, link_folder, locked, retire, write_config, written
from .versions import served_version, versions

KEEP = 2

SETTLE_SECONDS = 1.0
"""Between the models that an ensemble asks and the ensemble: a server that had listed the folder before the models
were there, and read the ensemble after it was switched, would end the ensemble for want of them."""


@dataclass(frozen=True, slots=True)
class Switched:
    """Which version of a model is served now, which was before (0: none), and which lie there."""

    name: str
    version: int
    former: int
    versions: tuple[int, ...]


def add_versions(made: Path, repository: Path, keep: int = KEEP) -> list[Switched]:
    """Put the models of one repository as new versions into another.

    Each model switches in one step; a server that polls sees the old version or the new one, and one that is told to
    load a model gets either. An ensemble does so with the models that it asks: `NAME_vN` of them are put first, and
    those of the version before stay, loaded, as long as it can be gone back to. Where it fails, the old version is
    served as before; what was put for the new one stays, since a server may be loading it, and goes at a later switch
    (see `sweep`). Where all are what is served already, byte
    for byte, nothing changes. Else each gets a new version, so that ensembles that ask the same models go back
    together.

    Args:
        made: repository with one version of each model.
        repository: what is served; made if it is missing.
        keep: versions to leave there, the new one and the one before it included; of an ensemble at least two, since a
            server may still ask the models of the one before.

    Returns:
        The models that clients ask for; not those of an ensemble.

    Raises:
        UsageError: `keep` is less than 1.
        TrtCompressError: a model disagrees with its configuration, or ONNX Runtime does not load it; nothing was
            written.
        StoreError: the repository cannot be written.
    """
    if keep < 1:
        raise UsageError(f"{keep} versions cannot be kept", where="--keep", hint="--keep 2")
    configs = {e.name: parse_config(e / CONFIG) for e in sorted(made.iterdir()) if (e / CONFIG).is_file()}
    asked = frozenset[str]().union(*map(asked_by, configs.values())) & configs.keys()
    with locked(repository):
        switched = [name for name in configs if name not in asked]
        if all(is_served(made, repository, name, configs) for name in switched):
            return [_as_it_is(repository / name) for name in switched]
        check_repository(made)  # Triton takes an ensemble down of which one model does not load
        greatest = (max(_versions(repository / name), default=0) for name in switched)
        number = 1 + max(*greatest, greatest_number(repository, asked) if asked else 0)
        names = {name: named_for(name, number) for name in sorted(asked)}
        if names:
            will_put(repository, names.values())
            _put_asked(made, repository, names)
        plans = [_Added.of(repository / name, configs[name], number, keep) for name in switched]
        with written([plan.place for plan in plans]) as folders:
            for plan, folder in zip(plans, folders, strict=True):
                rename_asked(configs[folder.name], names)
                plan.write(made / folder.name, folder, configs[folder.name])
            dropped = [name for plan in plans for name in plan.dropped_steps()]
        sweep(repository, dropped, switched)
        return [plan.switched() for plan in plans]


def roll_back(repository: Path, name: str, version: int | None = None) -> list[Switched]:
    """Serve the version before, or a certain one; of an ensemble also of those that ask the same models.

    Raises:
        UsageError: there is no such version, or a model that it asks is gone.
        StoreError: the repository cannot be written.
    """
    with locked(repository):
        wanted = _wanted(repository / name, version)
        chosen = {name: wanted, **along_with(repository, name, wanted)}
        for model, number in chosen.items():
            _wanted(repository / model, number)
        former = {
            model: served_version(repository / model, parse_config(repository / model / CONFIG)) for model in chosen
        }
        if moved := [model for model, number in chosen.items() if number != former[model]]:
            with written([repository / model for model in moved]) as folders:
                for folder in folders:
                    fill_with(repository / folder.name, folder, former[folder.name], chosen[folder.name])
        return [Switched(m, n, former[m], versions(repository / m)) for m, n in chosen.items()]


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
    for name in sorted(asked_by(config_of_version(folder, version))):
        if not (folder.parent / name / CONFIG).is_file():
            what = f"version {version} asks the model '{name}', which is not there any more"
            raise UsageError(what, where=str(folder / str(version)), hint="package that build again")
        if version != now and is_ensemble(parse_config(folder.parent / name / CONFIG)):
            raise UsageError(
                f"version {version} asks '{name}', which was an engine then and is an ensemble of a later build now",
                where=str(folder / str(version)),
                hint=f"trtcompress rollback {folder.parent} --model {name}, then this again",
            )
    return version


def _put_asked(made: Path, repository: Path, names: Mapping[str, str]) -> None:
    """The models that a new version asks, under names of their own. They stay when what follows fails (see `sweep`)."""
    with written([repository / called for called in names.values()]) as folders:
        for name, folder in zip(names, folders, strict=True):
            shutil.copytree(made / name, folder, dirs_exist_ok=True)
            config = parse_config(made / name / CONFIG)
            config.name = folder.name
            (folder / CONFIG).write_text(to_text(config), encoding="utf-8")
    time.sleep(SETTLE_SECONDS)


@dataclass(frozen=True, slots=True)
class _Added:
    """A model that gets one more version.

    Attributes:
        former: version that is served; 0: none.
        kept: versions that stay, beside the new one.
        gone: versions that do not.
    """

    place: Path
    new: int
    former: int
    kept: tuple[int, ...]
    gone: tuple[int, ...]

    @classmethod
    def of(cls, place: Path, config: Any, new: int, keep: int) -> _Added:
        there = _versions(place)
        served = parse_config(place / CONFIG) if (place / CONFIG).is_file() else None
        former = served_version(place, served) if served is not None else 0
        if is_ensemble(config) or (served is not None and is_ensemble(served)):
            keep = max(keep, KEEP)
        others = sorted((number for number in there if number != former), reverse=True)
        order = [number for number in (former, *others) if number]
        return cls(place, new, former, tuple(order[: keep - 1]), tuple(order[keep - 1 :]))

    def write(self, made: Path, folder: Path, config: Any) -> None:
        """Fill the folder that takes its place."""
        for number in self.kept:
            link_folder(self.place / str(number), folder / str(number))
        if self.former in self.kept:
            retire(self.place, folder / str(self.former))
        shutil.copytree(made / str(served_version(made, config)), folder / str(self.new))
        write_config(folder / CONFIG, config, self.new)
        if self.place.is_dir():
            link_beside(self.place, folder)

    def dropped_steps(self) -> list[str]:
        """The models that the versions asked that do not stay; while these are there."""
        return [name for number in self.gone for name in asked_by(config_of_version(self.place, number))]

    def switched(self) -> Switched:
        """For the report."""
        return Switched(self.place.name, self.new, self.former, tuple(sorted((*self.kept, self.new))))


def _as_it_is(place: Path) -> Switched:
    now = served_version(place, parse_config(place / CONFIG))
    return Switched(place.name, now, now, versions(place))


def _versions(place: Path) -> tuple[int, ...]:
    return versions(place) if place.is_dir() else ()


def numbers(switched: Sequence[Switched]) -> str:
    """For people: `mnist 1 -> 2`."""
    return ", ".join(
        f"{one.name} {one.version} as before"
        if one.version == one.former
        else f"{one.name} {one.former} -> {one.version}"
        for one in switched
    )
