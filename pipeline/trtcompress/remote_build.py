"""An engine built on the machine that has its card: graph and script go there, plan and log come back."""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trtcompress_graph.errors import CompileError, ModelError, RemoteError, RemoteSpaceError, RemoteToolError
from trtcompress_graph.target import Engine, Target

from . import remote_scripts as scripts
from .digests import digest_of, file_digest
from .files import write_text
from .packaging import BROUGHT
from .remote import Answer, call, no_space
from .remote_host import Host, card_for, choose, ensure, is_named
from .store import store_errors

RECORD = "remote.json"
LOG = "model.plan.log"
"""What is kept beside a plan: where and of what it was built, and what the builder said."""

SHELL, PYTHON = "reproduce.sh", "reproduce.py"
_NEEDED = 3
"""Space for the files, a plan as large, and what TensorRT writes meanwhile."""
_SHOWN = 12

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Brought:
    """A plan that lies beside its graph now.

    Attributes:
        plan: its file.
        host: where it was built.
        gpu: on which card; empty where that machine does not tell.
        tensorrt: version that built it; empty where neither the builder nor its log told.
        seconds: what it took; None where it was there already.
    """

    plan: Path
    host: str
    gpu: str
    tensorrt: str
    seconds: float | None

    @property
    def where(self) -> str:
        """In words: the machine, its card and its TensorRT."""
        told = f"TensorRT {self.tensorrt}" if self.tensorrt else "a TensorRT that did not tell its version"
        return ", ".join(filter(None, (self.host, self.gpu, told)))


def built_before(folder: Path) -> Brought | None:
    """The plan in an engine's folder, if it was built elsewhere of the very files beside it.

    Raises:
        ModelError: the folder lacks the script that builds the engine.
    """
    known, plan = _record(folder), folder / BROUGHT
    if known.get("built_of") != digest_of(_to_send(folder)) or not _is(plan, known.get("sha256", "")):
        return None
    version = known.get("tensorrt", "") or _version_in(folder / LOG)
    return Brought(plan, known.get("host", "?"), known.get("gpu", ""), version, None)


def built_of_others(folder: Path) -> bool:
    """Whether the plan in an engine's folder was brought by `build_there`, of other files than lie beside it now."""
    known = _record(folder)
    return _is(folder / BROUGHT, known.get("sha256", "")) and known.get("built_of") != digest_of(_to_send(folder))


def build_there(engine: Engine, target: Target, hosts: Sequence[Host], tell: Tell) -> Brought:
    """Build the plan of an engine on another machine and lay it beside the graph as `model.plan`.

    Only for who alone writes in that folder. What was sent or built before a connection broke is used again; a plan
    that is there and was built of these very files is left.

    Args:
        engine: that could only be checked here.
        target: its device.
        hosts: machines that may have the card.
        tell: told of each step.

    Raises:
        ModelError: the folder lacks the script that builds the engine.
        RemoteError: see its subclasses; the same call goes on.
        CompileError: TensorRT there refuses the graph.
        StoreError: the plan cannot be written here.
    """
    folder = engine.graph.path.parent
    sent = _to_send(folder)
    if before := built_before(folder):
        os.utime(before.plan)  # the graph was written anew, and is the same
        return before
    host, started = choose(hosts, target), time.perf_counter()
    key = digest_of([sent, str(folder.resolve()), platform.node()])[:32]
    _send(host, key, folder, sent, tell)
    tell(f"{engine.target}: building on {host.remote} with {host.builder} ({host.version})")
    card = card_for(host, target)
    if card and not is_named(card, target):
        tell(f"warning: {engine.target}: built on {card.title}, whose kernels may not be the fastest on {target.title}")
    device = card.index if card and len(host.gpus) > 1 else ""
    command = f"sh {SHELL}" if host.builder == "trtexec" else f"python3 {PYTHON}"
    answer = call(host.remote, scripts.build(key, list(sent), command, device), "building the engine")
    if answer.code == scripts.FAILED:
        raise _refused(answer, host, key)
    ensure(answer, host.remote, "building the engine")
    sha256 = answer.told("built")[0]
    _bring(host, key, folder, scripts.LOG, LOG, None)
    version = host.version if host.builder == "python3" else _version_in(folder / LOG)
    gpu = card.title if card else ""
    record = {"host": str(host.remote), "gpu": gpu, "builder": f"{host.builder} {host.version}", "tensorrt": version}
    with store_errors(folder):
        write_text(folder / RECORD, json.dumps({**record, "built_of": digest_of(sent), "sha256": sha256}, indent=1))
    _bring(host, key, folder, scripts.PLAN, BROUGHT, sha256)
    _forget(host, key)
    return Brought(folder / BROUGHT, str(host.remote), gpu, version, time.perf_counter() - started)


def _to_send(folder: Path) -> dict[str, str]:
    """Name and digest of the scripts that build an engine, and of each file that they read.

    Raises:
        ModelError: the scripts are missing, or a file is not the one that they name.
    """
    try:
        lines = (folder / SHELL).read_text(encoding="utf-8").splitlines()
        names = [shlex.split(line)[1].partition("  ")[2] for line in lines if line.endswith("| sha256sum -c -")]
        return {name: file_digest(folder / name) for name in (SHELL, PYTHON, *names) if Path(name).name == name}
    except FileNotFoundError as error:
        raise ModelError(
            "this is needed to build the engine elsewhere",
            where=str(error.filename),
            hint="make the engine again: trtcompress build, or trtcompress compile",
        ) from None


def _record(folder: Path) -> Mapping[str, str]:
    try:
        known: Mapping[str, str] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        return {}


def _version_in(log: Path) -> str:
    """The version of TensorRT that trtexec names in its first line as `[TensorRT v101300]`; empty where it does not."""
    try:
        found = re.search(r"\[TensorRT v(\d{4,6})\]", log.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    if found is None:
        return ""
    major, rest = divmod(int(found[1]), 10000 if len(found[1]) > 4 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and not path.is_symlink() and file_digest(path) == sha256


def _send(host: Host, key: str, folder: Path, sent: Mapping[str, str], tell: Tell) -> None:
    """Send what is not there yet."""
    answer = call(host.remote, scripts.state(key, list(sent)), "looking what is there")
    if answer.told("built"):
        return
    there = dict(line.split(maxsplit=1) for line in answer.told("have"))
    missing = [name for index, name in enumerate(sent) if there.get(str(index)) != sent[name]]
    size = sum((folder / name).stat().st_size for name in missing)
    if size * _NEEDED > host.free:
        raise RemoteSpaceError(
            f"{host.free / 1e6:.1f} MB are free there, and some {size * _NEEDED / 1e6:.1f} MB are needed",
            where=str(host.remote),
            hint="free some space there; XDG_CACHE_HOME there names another disk",
        )
    if missing:
        tell(f"sending {len(missing)} files, {size / 1e6:.1f} MB, to {host.remote}")
    for name in missing:
        with (folder / name).open("rb") as stream:
            answer = call(host.remote, scripts.receive(key, name, sent[name]), f"sending {name}", stdin=stream)
        if answer.code == scripts.DAMAGED:
            raise RemoteError(
                f"{name} arrived damaged", where=str(host.remote), hint="the same command sends it once more"
            )
        ensure(answer, host.remote, f"sending {name}")


def _bring(host: Host, key: str, folder: Path, name: str, final: str, sha256: str | None) -> None:
    """Fetch a file of what was built; it gets its final name when it is whole."""
    aside = folder / f".{final}.{secrets.token_hex(4)}.partial"
    for left in folder.glob(f".{final}.*.partial"):  # by a call that was killed
        left.unlink(missing_ok=True)
    try:
        with store_errors(folder):
            with aside.open("wb") as stream:
                answer = call(host.remote, scripts.give(key, name), f"bringing {name}", stdout=stream)
                stream.flush()
                os.fsync(stream.fileno())
            ensure(answer, host.remote, f"bringing {name}")
            if sha256 is not None and file_digest(aside) != sha256:
                _forget(host, key)
                hint = "the same command builds it once more"
                raise RemoteError(f"{name} arrived damaged", where=str(host.remote), hint=hint)
            aside.replace(folder / final)
    finally:
        aside.unlink(missing_ok=True)


def _forget(host: Host, key: str) -> None:
    """Clear up there, if the connection still holds; what stays is removed a month later."""
    with suppress(RemoteError):
        call(host.remote, scripts.forget(key), "clearing up")


def _refused(answer: Answer, host: Host, key: str) -> CompileError | RemoteError:
    """What to say where no plan was built."""
    said = [line for line in answer.out.splitlines() if line.strip() and not line.startswith("trtcompress: ")]
    code = answer.told("failed")[0]
    log = f"{host.remote}:~/.cache/trtcompress/remote/{key}/failed.log"
    if any("No space left" in line for line in said):
        return no_space(host.remote, "building the engine")
    if code == "137":
        said.append("it was killed: often for want of memory there")
    if code == "127":
        lines = "\n".join(said[-_SHOWN:])
        return RemoteToolError(f"a program is missing there:\n{lines}", where=str(host.remote), hint=f"see {log}")
    return CompileError(
        f"{host.builder} did not build the engine (exit code {code}):\n" + "\n".join(said[-_SHOWN:]),
        where=str(host.remote),
        hint=f"the log is {log}",
    )
