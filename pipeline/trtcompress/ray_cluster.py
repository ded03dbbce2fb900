"""A Ray cluster: the connection to it, and its nodes; ray_watch.py watches them."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtcompress_graph.errors import UsageError

from .ray_address import knock, no_answer
from .ray_node import Begun, Seen

_HEAD = "node:__internal_head__"
"""The resource that Ray itself gives to the head."""

_TRIES = 3
"""Of a connection over `ray://`: the head forks a process for each, which now and then dies at once, or is not up
within the half minute that Ray waits for it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster that steps can run on.

    Attributes:
        id: Ray's.
        host: its name, for people.
        cpus: steps that it takes at once.
        resources: what else it has of Ray's resources, by name.
        seen: what was found there; None before anyone looked.
    """

    id: str
    host: str
    cpus: int
    resources: Mapping[str, float] = field(default_factory=dict)
    seen: Seen | None = None

    def lacks(self, target: str) -> str:
        """What is missing there to build for a target, in words; empty where nothing is, or nobody looked."""
        return self.seen.lacking.get(target, "") if self.seen else ""


@contextmanager
def connected(address: str | None) -> Iterator[str]:
    """A connection to a cluster, as long as it is needed; one that the caller has is used, and kept.

    Nothing else may print to stdout meanwhile.

    Args:
        address: `HOST:PORT` of the cluster that this machine belongs to, `ray://HOST:PORT` from any other machine;
            else what `RAY_ADDRESS` says, or the cluster that runs on this machine.

    Yields:
        An address of the cluster's head; see `ray_address.head_answers`.

    Raises:
        UsageError: Ray is not installed, or this is no address.
        UnreachableError: the cluster does not answer.
    """
    # Else a call that comes after the connection ended, of a thread that looks at a node, starts a cluster here
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        import ray
    except ImportError:
        hint = "pip install 'trtcompress[ray]'"
        raise UsageError("Ray is not installed here", where="--executor ray", hint=hint) from None
    wanted = address or os.environ.get("RAY_ADDRESS") or "auto"
    if ray.is_initialized():
        yield _head(wanted)
        return
    if wanted != "auto":
        knock(wanted)
    # Ray tells of nodes that die on stdout, where a command's data goes
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        _connect(wanted)
        try:
            yield _head(wanted)
        finally:
            ray.shutdown()


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Ray's own handler of SIGTERM ends the program with no word and the number of the signal, and stays for good."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _connect(address: str) -> None:
    """Connect, and again where the head did not bring up its end.

    Raises:
        UnreachableError: the cluster does not answer.
    """
    import ray

    for left in reversed(range(_TRIES)):
        try:
            with sigterm_kept():
                ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR)
            return
        except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
            if left and isinstance(error, ConnectionAbortedError):
                continue
            raise no_answer(address, (str(error).splitlines() or [type(error).__name__])[0]) from error


def _head(address: str) -> str:
    import ray

    return address if address.startswith("ray://") else str(ray.get_runtime_context().gcs_address)


def notes_of_beginnings() -> Any:
    """The actor that notes which steps begin; None where they tell it themselves, which no task does over `ray://`."""
    import ray
    from ray.util.client import ray as client

    if not client.is_connected():
        return None
    return ray.remote(Begun).options(num_cpus=0, resources={_HEAD: 0.001}).remote()


def alive() -> dict[str, Node]:
    """Nodes that take work now, by their ids; a head that only manages takes none."""
    import ray

    found = {}
    for facts in ray.nodes():
        cpus = int(facts["Resources"].get("CPU", 0))
        if facts["Alive"] and cpus >= 1:
            found[facts["NodeID"]] = Node(facts["NodeID"], facts["NodeManagerHostname"], cpus, facts["Resources"])
    return found
