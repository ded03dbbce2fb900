"""A server of its own for one model, which it serves under other names with any setting."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from .client import Client
from .installed import Installed
from .load import Point, Window, measure, one_window, request_bytes
from .modelconfig import to_text
from .reference import Reference, has_reference
from .requests import Feed, find_bounds, make_feed
from .served_model import Served
from .server import running
from .setting import Setting, with_setting
from .version_folders import beside_versions
from .versions import link_or_copy, served_version

FEEDS = 8
"""Different requests that the clients send in turn."""

_UNLOAD_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Bench:
    """A server whose repository holds the model under other names, with any setting."""

    served: Served
    repository: Path
    address: str
    client: Client
    version: str
    feeds: tuple[Feed, ...]
    seconds: float

    @contextmanager
    def loaded(self, name: str, setting: Setting) -> Iterator[str]:
        """The model served so under this name; yields empty, or why the server cannot."""
        folder = self.repository / name
        version = str(served_version(self.served.folder, self.served.config))
        shutil.copytree(self.served.folder / version, folder / version, copy_function=link_or_copy)
        for entry in beside_versions(self.served.folder):
            (folder / entry.name).symlink_to(entry.resolve())
        config = with_setting(self.served.config, setting)
        config.name = name
        (folder / "config.pbtxt").write_text(to_text(config), encoding="utf-8")
        why = self.client.load(name)
        try:
            yield why
        finally:
            if not why and self.client.live():
                self.client.unload(name)
                self._wait_until_gone(name)
            shutil.rmtree(folder)

    def measure(self, name: str, clients: int) -> Point:
        """A point of the curve."""
        return measure(self.address, self._requests(name), clients, self.seconds)

    def turn(self, name: str, clients: int) -> Window:
        """One window."""
        return one_window(self.address, self._requests(name), clients, self.seconds)

    def _requests(self, name: str) -> list[bytes]:
        return [request_bytes(name, feed) for feed in self.feeds]

    def _wait_until_gone(self, name: str) -> None:
        end = time.monotonic() + _UNLOAD_SECONDS
        while self.client.ready(name) and time.monotonic() < end:
            time.sleep(0.05)


@contextmanager
def bench_for(served: Served, installed: Installed, samples: int, seconds: float) -> Iterator[Bench]:
    """A server of its own for a model; the repository is not touched, and a server that polls it sees nothing.

    Args:
        served: the model; no ensemble.
        installed: the tritonserver to run.
        samples: in a request.
        seconds: length of a window.

    Raises:
        ServingError: the server does not come up.
    """
    feeds = tuple(usual_feeds(served, samples))
    with TemporaryDirectory(prefix="trtcompress-") as folder:
        explicit = ("--model-control-mode", "explicit")
        with running(Path(folder), installed, explicit) as server, Client(server.grpc) as client:
            yield Bench(served, Path(folder), server.grpc, client, client.version(), feeds, seconds)


def usual_feeds(served: Served, samples: int) -> Iterator[Feed]:
    """Requests at the usual lengths, with values that the engine takes."""
    rng = np.random.default_rng(0)
    bounds: dict[str, int] = {}
    if has_reference(served):
        with Reference(served) as engine:
            bounds = find_bounds(served, engine)
    for _ in range(FEEDS):
        yield make_feed(served, rng, bounds, "opt", samples)
