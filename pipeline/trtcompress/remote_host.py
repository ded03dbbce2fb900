"""What is known of the machine that engines are built on: TensorRT, cards and space."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, overload

from trtcompress_engines.gpu.present import has_less_memory, is_of_model, memory_in
from trtcompress_graph.errors import RemoteError, RemoteToolError, UsageError
from trtcompress_graph.target import Target

from .remote import Answer, Remote, call
from .remote_board import is_board_of, is_jetson
from .remote_record import banner_version, is_asked
from .remote_scripts import PROBE

_NEEDED: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("python", (3, 8), "python3 of 3.8 or newer"),
    ("bindings", (8, 4), "tensorrt of 8.4 or newer in its python3"),
    ("numpy", (), "numpy in its python3"),
    ("cuda", (), "pycuda, nor a CUDA runtime (libcudart)"),
)
"""What the code of a kit is written for: what the probe tells, the least version, and in words."""


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
        tensorrt: version of the builder; empty where trtexec does not tell it.
        gpus: its cards; empty where nvidia-smi does not tell.
        python: whether its Python is new enough for the code of a kit.
        bindings: version of TensorRT's bindings; empty where they are not there.
        lacks: what is missing there to run a kit in Python, in words; empty where nothing is.
        board: what its device tree says that it is; a server has none.
        jetpack: the first line of its /etc/nv_tegra_release.
    """

    remote: Remote
    free: int
    builder: str
    version: str
    gpus: tuple[Gpu, ...]
    tensorrt: str = ""
    python: bool = False
    bindings: str = ""
    lacks: str = ""
    board: str = ""
    jetpack: str = ""


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
    bindings = next(iter(answer.told("bindings")), "")
    tools += [("python3", bindings)] if bindings else []
    if not tools:
        raise RemoteToolError(
            "neither trtexec nor Python's tensorrt is there",
            where=str(remote),
            hint="install TensorRT there and put trtexec on the PATH that `ssh HOST command -v trtexec` sees, "
            "or: pip install tensorrt",
        )
    lacks = _lacking(answer)
    free = next((int(text) * 1024 for text in answer.told("free") if text.isdecimal()), 0)
    return Host(
        remote,
        free,
        *tools[0],
        gpus=tuple(filter(None, map(_gpu, answer.told("gpu")))),
        tensorrt=banner_version(" ".join(answer.told("banner"))) if tools[0][0] == "trtexec" else bindings,
        python=lacks != _NEEDED[0][-1],
        bindings=bindings,
        lacks=lacks,
        board=" ".join(answer.told("board")),
        jetpack=" ".join(answer.told("jetpack")),
    )


def _lacking(answer: Answer) -> str:
    """The first thing that a kit needs and the machine has not."""
    for key, least, words in _NEEDED:
        there = next(iter(answer.told(key)), None)
        if there is None or tuple(int(part) for part in re.findall(r"\d+", there)[: len(least)]) < least:
            return words
    return ""


def _gpu(line: str) -> Gpu | None:
    index, _, rest = line.partition(",")
    capability, _, title = rest.partition(",")
    major, _, minor = capability.strip().partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        return None
    return Gpu(index.strip(), (int(major), int(minor)), title.strip())


def choose(hosts: Sequence[Host], target: Target, asked: str = "") -> Host:
    """The first machine that has the target's card, or one that stands for it, or the first that does not tell.

    For a device that builds its own engines: the first that is one, and not another model.

    Args:
        hosts: to choose from.
        target: a device.
        asked: release of TensorRT that has to build; empty: any.

    Raises:
        RemoteToolError: all have other cards.
        UsageError: those that have the card, or are the device, have other releases of TensorRT.
    """
    if target.how == "kit":
        devices = [host for host in hosts if fits(host, target)] or _no_device(hosts, target)
        return _of_release(devices, asked)
    cards = [(host, card) for host in hosts if (card := card_for(host, target))]
    nearest = [host for host, _ in sorted(cards, key=lambda one: _distance(one[1], target))]
    if fitting := nearest or [host for host in hosts if not host.gpus]:
        return _of_release(fitting, asked)
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


def _of_release(hosts: Sequence[Host], asked: str) -> Host:
    """The first machine that builds by that release, or may.

    Raises:
        UsageError: all have others.
    """
    found = next(filter(None, (_building_by(host, asked) for host in hosts)), None)
    if found is None:
        raise other_release({str(host.remote): host.tensorrt for host in hosts}, asked)
    return found


def _building_by(host: Host, asked: str) -> Host | None:
    """The machine as it builds by that release, with its bindings where trtexec is of another; None: it has others.

    Of a trtexec that does not tell its release, its log may.
    """
    if is_asked(asked, host.tensorrt):
        return host
    if is_asked(asked, host.bindings):
        return replace(host, builder="python3", version=host.bindings, tensorrt=host.bindings)
    return None if host.tensorrt else host


def other_release(there: Mapping[str, str], asked: str) -> UsageError:
    """That machines, by their addresses, build by other releases than the one that is asked for."""
    found = "; ".join(
        f"TensorRT {version or 'of no known version'} is installed on {at}" for at, version in there.items()
    )
    return UsageError(
        f"{found}, and {asked} was asked for",
        where="tensorrt.version",
        hint="leave it out, or build on a machine that has that release",
    )


def fits(host: Host, target: Target) -> bool:
    """Whether the machine is the device of the target, as far as it tells."""
    return is_jetson(host.board, host.jetpack) and is_board_of(host.board, target)


def _no_device(hosts: Sequence[Host], target: Target) -> NoReturn:
    found = "; ".join(f"{host.remote} is {host.board or 'none, as far as its device tree tells'}" for host in hosts)
    raise RemoteToolError(
        f"engines for {target.title} are built and measured on that very device: {found}",
        where=f"target '{target.name}'",
        hint="name the device with --remote, or leave the target out; see: trtcompress targets",
    )


def card_for(host: Host, target: Target) -> Gpu | None:
    """The card of that name, else one of its model, else one of that compute capability.

    None where there is none, or none is told of. One of less memory does not stand for a target.
    """
    fitting = [
        gpu
        for gpu in host.gpus
        if gpu.capability in target.compute_capabilities and not has_less_memory(gpu.title, target)
    ]
    return min(fitting, key=lambda gpu: _distance(gpu, target), default=None)


def _distance(gpu: Gpu, target: Target) -> tuple[bool, bool]:
    return not is_named(gpu, target), not is_of_model(gpu.title, target)


def is_named(gpu: Gpu, target: Target) -> bool:
    """Whether the card is the target's, of as much memory where its name tells of any."""
    told = memory_in(gpu.title)
    same = told is None or target.memory_gb is None or abs(told - target.memory_gb) < 0.1 * target.memory_gb
    return same and is_of_model(gpu.title, target)


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
