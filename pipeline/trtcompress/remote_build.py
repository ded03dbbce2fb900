"""An engine built on the machine that has its card: graph and script go there, plan and log come back."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence

from trtcompress_graph.errors import CompileError, RemoteError, RemoteToolError
from trtcompress_graph.target import Engine, Target

from . import remote_scripts as scripts
from .digests import digest_of
from .files import write_text
from .packaging import BROUGHT
from .remote import Answer, call, no_space
from .remote_files import Tell, bring, forget, key_of, send
from .remote_host import Host, card_for, choose, ensure, is_named, other_release
from .remote_record import (
    LOG,
    PYTHON,
    RECORD,
    SHELL,
    Brought,
    built_before,
    built_of_others,
    is_asked,
    to_send,
    version_in,
)
from .store import store_errors

_SHOWN = 12

__all__ = ["Brought", "Tell", "build_there", "built_before", "built_of_others"]


def build_there(
    engine: Engine, target: Target, hosts: Sequence[Host], tell: Tell, *, asked: str = "", unmeasured: str = ""
) -> Brought:
    """Build the plan of an engine on another machine and lay it beside the graph as `model.plan`.

    Only for who alone writes in that folder. What was sent or built before a connection broke is used again; a plan
    that is there and was built of these very files is left.

    Args:
        engine: that could only be checked here.
        target: its device.
        hosts: machines that may have the card.
        tell: told of each step.
        asked: release of TensorRT that has to build it; empty: any.
        unmeasured: why nothing is measured there, for the record.

    Raises:
        ModelError: the folder lacks the script that builds the engine.
        RemoteError: see its subclasses; the same call goes on.
        CompileError: TensorRT there refuses the graph.
        UsageError: another release is there than is asked for.
        StoreError: the plan cannot be written here.
    """
    folder = engine.graph.path.parent
    sent = to_send(folder)
    if before := built_before(folder, asked):
        os.utime(before.plan)  # the graph was written anew, and is the same
        return before
    host, started = choose(hosts, target, asked), time.perf_counter()
    key = key_of(sent, folder)
    send(host, key, folder, sent, tell)
    tell(f"{engine.target}: building on {host.remote} with {host.builder} ({host.version})")
    card = card_for(host, target)
    if card and not is_named(card, target):
        tell(f"warning: {engine.target}: built on {card.title}, whose kernels may not be the fastest on {target.title}")
    device = card.index if card and len(host.gpus) > 1 else ""
    command = f"sh {SHELL}" if host.builder == "trtexec" else f"python3 {PYTHON}"
    gpu = card.title if card else ""
    built_by = " ".join((host.builder, host.version, host.bindings, gpu))
    answer = call(host.remote, scripts.build(key, list(sent), command, device, built_by), "building the engine")
    if answer.code == scripts.FAILED:
        raise _refused(answer, host, key)
    ensure(answer, host.remote, "building the engine")
    sha256 = answer.told("built")[0]
    bring(host, key, scripts.LOG, folder / LOG, None)
    version = host.version if host.builder == "python3" else version_in(folder / LOG)
    if not is_asked(asked, version):  # of a trtexec that told it with its work alone
        with store_errors(folder):
            (folder / LOG).unlink()
        raise other_release({str(host.remote): version}, asked)
    record = {"host": str(host.remote), "gpu": gpu, "builder": f"{host.builder} {host.version}", "tensorrt": version}
    record |= {"unmeasured": unmeasured, "built_of": digest_of(sent), "sha256": sha256}
    with store_errors(folder):
        write_text(folder / RECORD, json.dumps(record, indent=1))
    bring(host, key, scripts.PLAN, folder / BROUGHT, sha256)
    forget(host, key)
    return Brought(folder / BROUGHT, str(host.remote), gpu, version, time.perf_counter() - started, unmeasured)


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
