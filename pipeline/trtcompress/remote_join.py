"""The engines of a build that need another machine: built there, joined into the build folder, packed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import TrtCompressError, UsageError
from trtcompress_graph.target import Target

from .asked import known_targets
from .assemble import MANIFEST, only_writer
from .config import BuildConfig, PackageFormat
from .digests import file_digest
from .files import write_text
from .outcome import BuildResult, TargetResult
from .packaging import BROUGHT
from .remote import parse_remote
from .remote_build import Brought, Tell, build_there, built_before
from .remote_host import Host, Hosts, choose
from .remote_report import tell_in_report
from .repack import repack
from .revalidate import shipped_engines
from .store import store_errors

SERVED: tuple[PackageFormat, ...] = ("triton",)
"""Formats that serve a plan of TensorRT; `triton-python` does not, and a kit builds its own."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What another machine built.

    Attributes:
        brought: of each target.
        repositories: that serve it now.
    """

    brought: dict[str, Brought]
    repositories: dict[str, tuple[Path, ...]]


def find_hosts(texts: Sequence[str], targets: Sequence[Target], build_dir: Path | None = None) -> Sequence[Host]:
    """Look at the machines before any work.

    Where an earlier build has a plan of every engine that it ships, they may not be needed: then they are looked at
    when a graph turns out to be another one.

    Args:
        texts: `user@host:port`.
        targets: of the build.
        build_dir: where an earlier build may lie.

    Raises:
        UsageError: no target needs another machine, or an address is wrong.
        RemoteError: a machine cannot be used, or none has the card of a target.
    """
    remotes = [parse_remote(text) for text in texts]
    needing = [target for target in targets if target.how == "local"]
    if not needing:
        raise UsageError(
            "no target is built on another machine",
            where="--remote",
            hint="it is for data-centre cards, such as --target h100; see: trtcompress targets",
        )
    hosts = Hosts(remotes)
    if build_dir is None or not _all_there(build_dir, {target.name for target in needing}):
        for target in needing:
            choose(hosts, target)
    return hosts


def _all_there(build_dir: Path, names: set[str]) -> bool:
    """Whether the engines that an earlier build ships for these targets were built elsewhere already."""
    try:
        folders = {t.name: e.graph.path.parent for e, t in shipped_engines(build_dir) if t.name in names}
        return set(folders) == names and all(built_before(folder) for folder in folders.values())
    except TrtCompressError:  # no build, or one that is not whole: it is made anew
        return False


def targets_of(config: BuildConfig) -> list[Target]:
    """The devices that a config names."""
    known = known_targets(config)
    return [resolve_target(settings.name, known) for settings in config.targets]


def join_remote(build_dir: Path, formats: Sequence[PackageFormat], hosts: Sequence[Host], tell: Tell) -> Joined:
    """Build what the build could only check, and pack it where the config asks for it.

    Args:
        build_dir: of a finished build.
        formats: of the config.
        hosts: machines that may have the cards.
        tell: told of each step.

    Raises:
        RemoteError, CompileError, StoreError: see `build_there`; what was brought before stays.
    """
    brought: dict[str, Brought] = {}
    repositories: dict[str, tuple[Path, ...]] = {}
    for engine, target in shipped_engines(build_dir):
        if engine.built or target.how != "local":
            continue
        with only_writer(build_dir):
            brought[target.name] = build_there(engine, target, hosts, tell)
            folders = {form: build_dir / form / target.name for form in formats if form in SERVED}
            _pack(build_dir, target.name, folders, brought[target.name].plan)
            tell_in_report(build_dir, target.name, brought[target.name], folders)
        repositories[target.name] = tuple(folders.values())
    return Joined(brought, repositories)


def _pack(build_dir: Path, target: str, folders: Mapping[PackageFormat, Path], plan: Path) -> None:
    """Pack a plan, unless that is done. The manifest names the files: a later build that makes none removes them."""
    digest = file_digest(plan)
    for form, folder in folders.items():
        if not any(file_digest(path) == digest for path in folder.rglob(BROUGHT)):
            repack(build_dir, form, (target,), folder)
    manifest = json.loads((build_dir / MANIFEST).read_text(encoding="utf-8"))
    for path in (path for folder in folders.values() for path in sorted(folder.rglob("*")) if path.is_file()):
        state = {"sha256": file_digest(path), "size": path.stat().st_size}
        manifest["files"][path.relative_to(build_dir).as_posix()] = state
    with store_errors(build_dir):
        write_text(build_dir / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def with_plans(result: BuildResult, joined: Joined) -> BuildResult:
    """The result with the plans in place of the graphs that could only be checked here."""

    def of(target: TargetResult) -> TargetResult:
        if target.target not in joined.brought:
            return target
        plan = joined.brought[target.target].plan
        facts = {"engine": str(plan), "sha256": file_digest(plan), "size_bytes": plan.stat().st_size}
        return target.model_copy(update=facts)

    return result.model_copy(update={"targets": tuple(of(target) for target in result.targets)})
