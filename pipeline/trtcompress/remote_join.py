"""The engines of a build that need another machine: built and measured there, joined into the build folder, packed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import CompileError, TrtCompressError, UsageError
from trtcompress_graph.target import Engine, Target

from .as_built import shipped_as_built
from .asked import known_targets
from .assemble import only_writer
from .config import BuildConfig, Loaded
from .kit_build import asked_release
from .kit_import import import_results
from .packed_again import SERVED
from .remote import parse_remote
from .remote_build import Brought, Tell, build_there, built_before
from .remote_host import Host, Hosts, choose, fits
from .remote_kit import Measured, is_measured, measure_there, why_unmeasured
from .remote_record import read_record
from .remote_report import pack_and_tell, tell_in_report
from .report import REPORT
from .revalidate import shipped_engines

_ELSEWHERE = ("local", "kit")
"""How the engines of such targets are made."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What another machine built.

    Attributes:
        brought: of each target the plan of the engine that is shipped.
        repositories: that serve it now.
        measured: targets whose engines were measured there.
        problems: why an engine that is shipped is not there, or was not measured; all else was joined.
    """

    brought: dict[str, Brought]
    repositories: dict[str, tuple[Path, ...]]
    measured: frozenset[str]
    problems: tuple[TrtCompressError, ...]


def find_hosts(
    texts: Sequence[str], targets: Sequence[Target], asked: Mapping[str, str], build_dir: Path | None = None
) -> Sequence[Host]:
    """Look at the machines before any work.

    Where an earlier build has a plan of every engine that it ships, they may not be needed: then they are looked at
    when a graph turns out to be another one. A Jetson that is not among them is left to its kit, where the machines
    serve other targets.

    Args:
        texts: `user@host:port`.
        targets: of the build.
        asked: release of TensorRT that has to build for a target, by its name; empty: any.
        build_dir: where an earlier build may lie.

    Raises:
        UsageError: no target needs another machine, an address is wrong, or another release is there than is asked for.
        RemoteError: a machine cannot be used, none has the card of a target, or none is the device.
    """
    remotes = [parse_remote(text) for text in texts]
    needing = [target for target in targets if target.how in _ELSEWHERE]
    if not needing:
        raise UsageError(
            "no target is built on another machine",
            where="--remote",
            hint="it is for data-centre cards and Jetson, such as --target h100; see: trtcompress targets",
        )
    hosts = Hosts(remotes)
    if build_dir is None or not _all_there(build_dir, {target.name: asked[target.name] for target in needing}):
        # a device that is none of the machines is left to its kit, where they serve other targets
        served = [target for target in needing if target.how == "local" or any(fits(host, target) for host in hosts)]
        for target in served or needing[:1]:
            choose(hosts, target, asked[target.name])
    return hosts


def _all_there(build_dir: Path, asked: Mapping[str, str]) -> bool:
    """Whether the engines that an earlier build ships for these targets were built and measured elsewhere already.

    Args:
        build_dir: of that build.
        asked: release of TensorRT by the name of the target; empty: any.
    """
    try:
        shipped = [(t.name, e.graph.path.parent) for e, t in shipped_engines(build_dir) if t.name in asked]
        facts = json.loads((build_dir / REPORT).read_text(encoding="utf-8"))
        at_first = {v["target"]: shipped_as_built(v) for v in facts["validations"]}
        wanted = {
            place for name, folder in shipped for place in ((name, folder), (name, folder.with_name(at_first[name])))
        }
        return {name for name, _ in shipped} == set(asked) and all(
            built_before(folder, asked[name]) and is_measured(build_dir, name, read_record(folder))
            for name, folder in wanted
        )
    except TrtCompressError:  # no build, or one that is not whole: it is made anew
        return False


def targets_of(config: BuildConfig) -> list[Target]:
    """The devices that a config names."""
    known = known_targets(config)
    return [resolve_target(settings.name, known) for settings in config.targets]


def asked_releases(config: BuildConfig) -> dict[str, str]:
    """The release of TensorRT that has to build for each target of a config, by its name; empty: any."""
    return {target.name: asked_release(config, target) for target in targets_of(config)}


def join_remote(build_dir: Path, loaded: Loaded, hosts: Sequence[Host], tell: Tell) -> Joined:
    """Build and measure what the build could only check, join it into the reports, and pack it where that is asked for.

    Args:
        build_dir: of a finished build.
        loaded: its config.
        hosts: machines that may have the cards.
        tell: told of each step.

    Raises:
        RemoteError, CompileError, UsageError, StoreError: see `build_there` and `measure_there`; what was brought
            before stays, and the same call goes on.
    """
    brought: dict[str, Brought] = {}
    repositories: dict[str, tuple[Path, ...]] = {}
    measured: set[str] = set()
    problems: list[TrtCompressError] = []
    for engine, target in shipped_engines(build_dir):
        if engine.built or target.how not in _ELSEWHERE:
            continue
        if target.how == "kit" and not _has(hosts, build_dir, target, asked_release(loaded.config, target)):
            tell(f"{target.name}: none of the machines of --remote is one: it is left to its kit")
            continue
        plans, made = _plans_of(build_dir, loaded, engine, target, hosts, tell)
        if made and made.problem:
            problems.append(made.problem)
        if made and made.results:
            import_results(build_dir, made.results, loaded.base, _gpu(plans))
            measured.add(target.name)
        if engine.encoding not in plans:
            problems.append(_not_built(engine, target, made))
        shipped = _shipped(build_dir, target)
        with only_writer(build_dir):
            tell_in_report(build_dir, target.name, plans)
            if shipped not in plans:
                continue
            brought[target.name] = plans[shipped]
            folders = {form: build_dir / form / target.name for form in loaded.config.package if form in SERVED}
            served = folders, brought[target.name].plan, loaded.config.name
            for said in pack_and_tell(build_dir, target.name, *served, loaded.base):
                tell(f"{target.name}: {said}")
        repositories[target.name] = tuple(folders.values())
    return Joined(brought, repositories, frozenset(measured), tuple(problems))


def _gpu(plans: Mapping[str, Brought]) -> str:
    """The card, where that machine tells."""
    return next((plan.gpu for plan in plans.values()), "")


def _shipped(build_dir: Path, target: Target) -> str:
    """The encoding that is shipped now: what was measured may have changed it."""
    return next(engine.encoding for engine, there in shipped_engines(build_dir) if there.name == target.name)


def _not_built(engine: Engine, target: Target, made: Measured | None) -> CompileError:
    """That the engine that is shipped was refused there, where another was built."""
    return CompileError(
        f"{engine.encoding} was not built there:\n{made.said if made else ''}",
        where=f"target '{target.name}'",
        hint=f"report.md tells what the others came to and whether one is shipped; without it: {target.name}:float",
    )


def _has(hosts: Sequence[Host], build_dir: Path, target: Target, asked: str) -> bool:
    """Whether a device is among the machines, or all that it made is here."""
    return _all_there(build_dir, {target.name: asked}) or any(fits(host, target) for host in hosts)


def _plans_of(
    build_dir: Path, loaded: Loaded, engine: Engine, target: Target, hosts: Sequence[Host], tell: Tell
) -> tuple[Mapping[str, Brought], Measured | None]:
    """Plans by encoding, and what was measured of them; one plan and nothing where the machine can only build."""
    folder, asked = engine.graph.path.parent, asked_release(loaded.config, target)
    with only_writer(build_dir):
        why, record = "", read_record(folder)
        before = built_before(folder, asked)
        if target.how == "local" and before and "kit" not in record:
            why = before.unmeasured
        elif target.how == "local" and not (before and is_measured(build_dir, target.name, record)):
            why = why_unmeasured(choose(hosts, target, asked), target, loaded.config)
        if why:
            plan = build_there(engine, target, hosts, tell, asked=asked, unmeasured=why)
            return {engine.encoding: replace(plan, unmeasured=why)}, None
        measured = measure_there(build_dir, loaded, target, hosts, tell)
        return measured.brought, measured
