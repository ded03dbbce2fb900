"""A kit that another machine runs: its engines and what was measured of them come back."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trtcompress_engines.kit.device.kit import SUMS
from trtcompress_engines.kit.device.results import RESULTS
from trtcompress_graph.errors import HostLostError, RemoteError, RemoteToolError, TrtCompressError
from trtcompress_graph.target import Target

from .config import BuildConfig, Loaded
from .digests import digest_of, file_digest
from .files import write_text
from .kit_build import asked_release, settings_of, sources_of
from .kit_packing import pack_kit
from .kit_results import KitResults, read_results
from .packaging import BROUGHT
from .remote_files import Tell, bring, bring_all, forget, key_of, send
from .remote_host import Host, card_for, choose
from .remote_record import LOG, RECORD, Brought, built_before, is_asked, read_record, to_send
from .remote_steps import KitRun, run_step
from .store import store_errors

DEVICES = "devices"
"""Folder of a build with what came back, by the names of the targets."""

_RESULT = re.compile(r"results/((outputs/([\w-][\w.-]*/)?)?[\w-][\w.-]*)")
"""A file that is brought home: no other name that a machine tells is taken."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a machine made of a kit.

    Attributes:
        brought: plans by the names of their encodings; one that TensorRT there refused is not among them.
        results: what was measured of them; None where that failed.
        said: the end of the log of `./build` where it built not all.
        problem: why nothing was measured.
    """

    brought: Mapping[str, Brought]
    results: Path | None
    said: str = ""
    problem: RemoteError | None = None


def why_unmeasured(host: Host, target: Target, config: BuildConfig) -> str:
    """Why a machine can build the engines of a data-centre card and cannot measure them; empty where it can."""
    section = settings_of(config, target).tensorrt or config.tensorrt
    if host.lacks:
        return (
            f"there is no {host.lacks}; install it on {host.remote} (pip install tensorrt numpy pycuda), "
            f"remove {BROUGHT} here and build with --remote again"
        )
    if section.strip:
        return "a plan without weights (tensorrt.strip) cannot run"
    if not is_asked(section.version or "", host.bindings):
        return f"tensorrt.version is {section.version}, and the Python of {host.remote} has {host.bindings}"
    return ""


def measure_there(build_dir: Path, loaded: Loaded, target: Target, hosts: Sequence[Host], tell: Tell) -> Measured:
    """Build and measure the engines of a target on another machine, by a kit.

    The plans are laid beside their graphs as `model.plan`, and the results into `devices/TARGET`. Only for who alone
    writes in the build folder. Engines that were built there before a connection broke are used again; results that are
    here and of this very kit are left.

    Args:
        build_dir: of a finished build.
        loaded: its config.
        target: a device, or a card whose machine can measure (see `why_unmeasured`).
        hosts: machines, of which one is that.
        tell: told of each step.

    Raises:
        RemoteError: see its subclasses, before plans are here or where the connection broke; the same call goes on.
        CompileError: TensorRT there refuses all graphs.
        UnusableInputError: no kit can be made of this build.
        UsageError: another release of TensorRT is there than is asked for.
        StoreError: something cannot be written here.
    """
    folder = build_dir / DEVICES / target.name
    with store_errors(folder):
        folder.parent.mkdir(exist_ok=True)
        for left in folder.parent.glob(".kit.*"):  # by a call that was killed
            shutil.rmtree(left)
    version, asked = str(read_record(folder).get("tensorrt", "")), asked_release(loaded.config, target)
    with TemporaryDirectory(prefix=".kit.", dir=folder.parent) as aside:
        kit = Path(aside, "kit")
        if (version and is_asked(asked, version)) or target.how == "kit":
            _write(kit, build_dir, loaded, target, version)
            if before := _before(build_dir, target, file_digest(kit / SUMS), loaded.config.measure.seconds):
                return before
        host = choose(hosts, target, asked)
        if target.how == "local" and (why := why_unmeasured(host, target, loaded.config)):
            raise RemoteToolError("the engines cannot be measured there again", where=str(host.remote), hint=why)
        if target.how == "local" and host.bindings != version:
            kit = Path(aside, "other")
            _write(kit, build_dir, loaded, target, host.bindings)
        return _run(kit, build_dir, target, host, loaded.config.measure.seconds, tell)


def is_measured(build_dir: Path, target: str, record: Mapping[str, Any]) -> bool:
    """Whether what was measured of a plan is here, by the record beside it, or nothing was to be measured."""
    folder = build_dir / DEVICES / target
    return "kit" not in record or (read_record(folder).get("kit") == record["kit"] and (folder / RESULTS).is_file())


def _write(folder: Path, build_dir: Path, loaded: Loaded, target: Target, version: str) -> None:
    """Write the kit; a server has the TensorRT that it has, and no other is to be thought of."""
    folder.mkdir()
    if target.how == "local":
        target = replace(target, tensorrt=(("this machine", version),))
    pack_kit(sources_of(build_dir, loaded.config, target, loaded.base), folder)


def _engines(build_dir: Path, target: Target) -> dict[str, Path]:
    """Folders of the engines of a target, by encoding."""
    return {path.parent.name: path.parent for path in (build_dir / "engines" / target.name).glob("*/engine.json")}


def _before(build_dir: Path, target: Target, digest: str, seconds: float) -> Measured | None:
    """What an earlier call brought of this very kit, timed for as long, if it is all there."""
    folder = build_dir / DEVICES / target.name
    known = read_record(folder)
    files = known.get("files", {})
    if known.get("kit") != digest or known.get("seconds") != seconds:
        return None
    if any(not _is(folder / name, sha256) for name, sha256 in files.items()):
        return None
    places = _engines(build_dir, target)
    found = {name: built_before(places[name]) for name in known["engines"] if name in places}
    brought = {name: plan for name, plan in found.items() if plan is not None}
    if len(brought) < len(known["engines"]):
        return None
    for plan in brought.values():
        os.utime(plan.plan)  # the graph was written anew, and is the same
    return Measured(brought, folder / RESULTS, known.get("said", ""))


def _run(kit: Path, build_dir: Path, target: Target, host: Host, seconds: float, tell: Tell) -> Measured:
    started = time.perf_counter()
    sent = {path.relative_to(kit).as_posix(): file_digest(path) for path in sorted(kit.rglob("*")) if path.is_file()}
    folder = build_dir / DEVICES / target.name
    key = key_of(sent, folder)
    with store_errors(folder):
        shutil.rmtree(folder, ignore_errors=True)  # of another kit, or not whole
    send(host, key, kit, sent, tell)
    card = card_for(host, target)
    device = card.index if card and len(host.gpus) > 1 else ""
    about = {"host": str(host.remote), "gpu": card.title if card else host.board, "kit": sent[SUMS]}
    tell(f"{target.name}: building on {host.remote}, by a kit")
    built = run_step(host, key, "build", device)
    places = {
        name: place for name, place in _engines(build_dir, target).items() if f"engines/{name}.plan" in built.left
    }
    for name, place in places.items():
        _bring_plan(host, key, name, place, built, {**about, "tensorrt": host.bindings})
    tell(f"{target.name}: measuring on {host.remote}")
    timing = f"--seconds {seconds}" if host.python else ""  # the shell of JetPack 4 times as long as it does
    try:
        checked = run_step(host, key, "validate", device, timing)
    except HostLostError:
        raise
    except RemoteError as problem:
        came = (about["host"], about["gpu"], host.bindings, time.perf_counter() - started, "./validate failed there")
        plans = {name: Brought(place / BROUGHT, *came) for name, place in places.items()}
        return Measured(plans, None, built.said, problem)
    found = {match[1]: path for path in checked.left if (match := _RESULT.fullmatch(path))}
    bring_all(host, key, {path: checked.left[path] for path in found.values()}, folder)
    for log in ("build.log", "validate.log"):
        bring(host, key, log, folder / log, None)
    try:
        told = read_results(folder / RESULTS)
    except TrtCompressError:
        forget(host, key)  # else the same would be brought once more
        raise
    if other := _of_other_plans(told, {name: built.left[f"engines/{name}.plan"] for name in places}):
        forget(host, key)
        what, hint = (
            f"another plan of {other} was measured there than was built",
            "the same command does both once more",
        )
        raise RemoteError(what, where=str(host.remote), hint=hint)
    files = {name: checked.left[path] for name, path in found.items()}
    version = host.bindings if target.how == "local" else ""
    kept = {"engines": list(places), "files": files, "said": built.said, "seconds": seconds}
    with store_errors(folder):
        write_text(folder / RECORD, json.dumps({**about, "tensorrt": version, **kept}, indent=1))
    forget(host, key)
    where, took = (about["host"], about["gpu"], told.device.tensorrt), time.perf_counter() - started
    brought = {name: Brought(place / BROUGHT, *where, took) for name, place in places.items()}
    return Measured(brought, folder / RESULTS, built.said)


def _bring_plan(host: Host, key: str, name: str, folder: Path, built: KitRun, about: Mapping[str, str]) -> None:
    """Lay a plan beside its graph, with its log and where it is from; one that is there is left."""
    path = f"engines/{name}.plan"
    sha256, log = built.left[path], f"engines/{name}.log"
    record = {**about, "builder": "kit", "built_of": digest_of(to_send(folder)), "sha256": sha256}
    if built_before(folder) and read_record(folder) == record:
        os.utime(folder / BROUGHT)
        return
    bring(host, key, log if log in built.left else "build.log", folder / LOG, None)
    with store_errors(folder):
        write_text(folder / RECORD, json.dumps(record, indent=1))
    bring(host, key, path, folder / BROUGHT, sha256)


def _of_other_plans(told: KitResults, plans: Mapping[str, str]) -> str:
    """Names of the engines whose results are of other plans than those that were brought."""
    other = (one.encoding for one in told.engines if plans.get(one.encoding, one.sha256) != one.sha256)
    return ", ".join(other)


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and file_digest(path) == sha256
