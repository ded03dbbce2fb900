"""Nodes of a Ray cluster while builds run: one that dies is used no more, one that joins is looked at and used."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from trtcompress_graph.errors import HostLostError, TrtCompressError, UnreachableError

from .ray_address import head_answers
from .ray_cluster import Node, alive

GOES_ON = "the same command goes on from there"
"""Where a part of the cluster is lost."""
_TOLD = logging.getLogger("trtcompress.stages")

_AGAIN = 30.0
"""Seconds after which a node that joined and did not answer is looked at again."""

Look = Callable[[Node], Node]
"""A node with what was found there; raises what forbids to build there."""


@dataclass(slots=True)
class Watch:
    """The nodes that builds can use now.

    Attributes:
        head: address of the machine that manages the cluster.
        nodes: that were looked at, those that builds began with first.
        look: at a node that joins.
    """

    head: str
    nodes: tuple[Node, ...]
    look: Look
    _known: set[str] = field(default_factory=set)
    _gone: set[str] = field(default_factory=set)
    _silent: set[str] = field(default_factory=set)
    _closed: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._known |= {node.id for node in self.nodes}

    def there(self) -> list[Node]:
        """Nodes that live and were looked at; of each that dies or joins it is told once.

        Raises:
            HostLostError: the head is gone, and with it the cluster, or the connection to it is.
        """
        if not head_answers(self.head):
            raise HostLostError("the head of the Ray cluster is gone", where=self.head, hint=GOES_ON)
        try:
            living = alive()
        except Exception as error:  # Ray raises many kinds, and over ray:// none of its own
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise HostLostError(f"the connection is lost: {why}", where=self.head, hint=GOES_ON) from error
        with self._lock:
            gone = [node for node in self.nodes if node.id not in living and node.id not in self._gone]
            self._gone |= {node.id for node in gone}
            joined = [node for node in living.values() if node.id not in self._known]
            self._known |= {node.id for node in joined}
        for node in gone:
            _TOLD.warning("warning: Ray node %s is gone; what it was at is done again elsewhere", node.host)
        for node in joined:  # which may take a while; nobody waits for it
            threading.Thread(target=self._take, args=(node,), name="ray-join", daemon=True).start()
        return [node for node in self.nodes if node.id in living]

    def close(self) -> None:
        """Take no more nodes, and tell no more of any; to be called before the connection ends."""
        self._closed.set()

    def _take(self, node: Node) -> None:
        try:
            seen = self.look(node)
        except Exception as error:  # Ray raises many kinds, and a thread has nobody to raise to
            if not self._closed.is_set():
                self._leave_out(node, error)
            return
        if self._closed.is_set():
            return
        _TOLD.info("Ray node %s joined, and takes work", node.host)
        with self._lock:
            self.nodes = (*self.nodes, seen)

    def _leave_out(self, node: Node, error: Exception) -> None:
        """For good where it cannot build; where it did not answer, until it is looked at again."""
        if isinstance(error, TrtCompressError) and not isinstance(error, UnreachableError):
            _TOLD.warning("warning: Ray node %s joined, and is left out: %s", node.host, error.what)
            return
        if node.id not in self._silent:  # told once
            self._silent.add(node.id)
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            _TOLD.warning("warning: Ray node %s joined, and is asked again until it answers: %s", node.host, why)
        self._closed.wait(_AGAIN)
        with self._lock:
            self._known.discard(node.id)
