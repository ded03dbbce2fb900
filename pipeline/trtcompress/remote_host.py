"""What is known of the machine that engines are built on: TensorRT, cards and space."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from trtcompress_graph.errors import RemoteError, RemoteToolError
from trtcompress_graph.target import Target

from .remote import Answer, Remote, call
from .remote_scripts import PROBE


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card of the other machine."""

    index: str
    capability: tuple[int, int]
    title: str


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of the other machine.

    Attributes:
        remote: how to get there.
        free: bytes.
        builder: `trtexec` or `python3`; the latter has TensorRT's bindings.
        version: path of trtexec, or version of the bindings.
        gpus: its cards; empty where nvidia-smi does not tell.
    """

    remote: Remote
    free: int
    builder: str
    version: str
    gpus: tuple[Gpu, ...]


class Hosts(Sequence[Host]):
    """Machines that are looked at when one of them is needed first."""

    def __init__(self, remotes: Sequence[Remote]) -> None:
        self._remotes = tuple(remotes)
        self._known: tuple[Host, ...] | None = None

    def __len__(self) -> int:
        return len(self._remotes)

    @overload
    def __getitem__(self, index: int) -> Host: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Host, ...]: ...
    def __getitem__(self, index: int | slice) -> Host | tuple[Host, ...]:
        if self._known is None:
            self._known = tuple(probe(remote) for remote in self._remotes)
        return self._known[index]


def probe(remote: Remote) -> Host:
    """Look at the other machine.

    Raises:
        UnreachableError, LoginError: there is no connection.
        RemoteToolError: it has no TensorRT, or no sha256sum.
        RemoteSpaceError: nothing can be written there.
    """
    answer = call(remote, PROBE, "looking at it", first=True)
    ensure(answer, remote, "looking at it")
    if not answer.told("sums"):
        raise RemoteToolError("there is no sha256sum there", where=str(remote), hint="install coreutils there")
    tools = [("trtexec", path) for path in answer.told("trtexec")]
    tools += [("python3", version) for version in answer.told("bindings")]
    if not tools:
        raise RemoteToolError(
            "neither trtexec nor Python's tensorrt is there",
            where=str(remote),
            hint="install TensorRT there and put trtexec on the PATH that `ssh HOST command -v trtexec` sees, "
            "or: pip install tensorrt",
        )
    free = next((int(text) * 1024 for text in answer.told("free") if text.isdecimal()), 0)
    return Host(remote, free, *tools[0], tuple(filter(None, map(_gpu, answer.told("gpu")))))


def _gpu(line: str) -> Gpu | None:
    index, _, rest = line.partition(",")
    capability, _, title = rest.partition(",")
    major, _, minor = capability.strip().partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        return None
    return Gpu(index.strip(), (int(major), int(minor)), title.strip())


def choose(hosts: Sequence[Host], target: Target) -> Host:
    """The first machine that has the target's card, or the first that does not tell what it has.

    Raises:
        RemoteToolError: all have others.
    """
    fitting = [host for host in hosts if card_for(host, target)] or [host for host in hosts if not host.gpus]
    if fitting:
        return fitting[0]
    found = "; ".join(
        f"{host.remote} has {', '.join(f'{gpu.title} (SM{gpu.capability[0]}{gpu.capability[1]})' for gpu in host.gpus)}"
        for host in hosts
    )
    major, minor = target.compute_capabilities[0]
    raise RemoteToolError(
        f"an engine for {target.title} (SM{major}{minor}) is built on a machine that has that card: {found}",
        where=f"target '{target.name}'",
        hint="name one more machine with --remote, or leave the target out",
    )


def card_for(host: Host, target: Target) -> Gpu | None:
    """The card of that name, or else one of that compute capability; None where there is none, or none is told of."""
    fitting = [gpu for gpu in host.gpus if gpu.capability in target.compute_capabilities]
    return next(iter([*(gpu for gpu in fitting if is_named(gpu, target)), *fitting]), None)


def is_named(gpu: Gpu, target: Target) -> bool:
    """Whether the card is of the target's model: `NVIDIA A100-SXM4-40GB` is an A100, and an L40S is no L4."""
    model = next((word for word in _words(target.title) if word not in ("nvidia", "tesla")), "")
    return model in _words(gpu.title)


def _words(title: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", title.lower())


def ensure(answer: Answer, remote: Remote, doing: str) -> None:
    """Raise what a script said where it failed.

    Raises:
        RemoteError: it did.
    """
    if answer.code:
        said = (answer.err or answer.out).strip().splitlines()
        raise RemoteError(
            f"{doing} failed there with exit code {answer.code}",
            where=str(remote),
            hint="it said: " + (said[-1] if said else "nothing"),
        )
