"""A real tritonserver, started on a model repository for as long as it is needed."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from trtcompress_graph.errors import ServingError

from .. import with_parent
from .installed import Installed
from .server_packages import with_packages

START_SECONDS = 120
"""How long a server may take until it answers; models load in that time."""

TRIES = 5
"""Pairs of ports for a server: until it binds them, after its models are loaded, another process may."""

_LOG_LINES = 20

_PORT_TAKEN = "already in use"
"""What it logs before it ends for want of a port."""

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""No proxy (`http_proxy`) reaches a server on loopback."""


class _PortTakenError(ServingError):
    """Another process has bound a port of the server by now."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: `HOST:PORT` of its two protocols, and where it logs."""

    http: str
    grpc: str
    log: Path

    def log_text(self) -> str:
        """All that it logged so far."""
        return self.log.read_text(errors="replace")

    def answers(self, path: str) -> bool:
        """Whether it answers 200 to a GET of this path."""
        return self._asked(path) is not None

    def is_called(self, name: str) -> bool:
        """Whether the one that answers was started with this `--id`."""
        try:
            told = json.loads(self._asked("/v2") or b"null")
        except ValueError:
            return False
        return isinstance(told, dict) and told.get("name") == name

    def _asked(self, path: str) -> bytes | None:
        try:
            with _DIRECT.open(f"http://{self.http}{path}", timeout=5) as answer:
                return bytes(answer.read()) if answer.status == 200 else None
        except (urllib.error.URLError, http.client.HTTPException, OSError):
            return None

    def live(self) -> bool:
        """Whether it is up."""
        return self.answers("/v2/health/live")

    def model_ready(self, name: str) -> bool:
        """Whether it serves the model."""
        return self.answers(f"/v2/models/{name}/ready")


@contextmanager
def running(
    repository: Path, installed: Installed, arguments: Sequence[str] = (), start_seconds: float = START_SECONDS
) -> Iterator[Server]:
    """Serve a model repository on 127.0.0.1; models that fail to load do not end the server.

    It ends with the block, and with the thread that runs it, however that ends.

    Raises:
        ServingError: the server did not come up.
    """
    with tempfile.TemporaryDirectory(prefix="tritonserver-") as folder:
        backends = _backends(installed, Path(folder))
        command = [
            *(str(installed.binary), "--model-repository", str(repository.resolve()), "--allow-metrics", "false"),
            *(("--backend-directory", str(backends)) if backends else ()),
            *("--exit-on-error", "false", "--strict-readiness", "false", "--exit-timeout-secs", "5"),
            *arguments,
        ]
        if installed.packages is not None:
            place = with_packages(installed.packages, installed.folder, Path(folder, "packages"))
            installed = replace(installed, folder=place)
        server, process = _up(command, installed, Path(folder, "log"), start_seconds)
        try:
            yield server
        finally:
            _stop(process)


def _up(
    command: Sequence[str], installed: Installed, log: Path, start_seconds: float
) -> tuple[Server, subprocess.Popen[bytes]]:
    """Start it on two ports that were free a moment ago, on others where they are taken by then."""
    for left in reversed(range(TRIES)):
        name, (http_port, grpc_port) = f"trtcompress-{uuid.uuid4().hex}", _free_ports(2)
        server = Server(f"127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}", log)
        own = [
            *("--id", name, "--http-address", "127.0.0.1", "--http-port", str(http_port)),
            *("--grpc-address", "127.0.0.1", "--grpc-port", str(grpc_port)),
        ]
        with log.open("wb") as out:
            process = _start([*command, *own], installed, out.fileno())
        try:
            _wait_until_up(server, name, process, start_seconds)
            break
        except BaseException as error:
            _stop(process)
            if not (left and isinstance(error, _PortTakenError)):
                raise
    return server, process


def _start(command: Sequence[str], installed: Installed, out: int) -> subprocess.Popen[bytes]:
    launcher = [sys.executable, "-IS", with_parent.__file__, str(os.getpid()), json.dumps(dict(installed.environment))]
    return subprocess.Popen(
        [*launcher, *command], stdout=out, stderr=subprocess.STDOUT, cwd=installed.folder, start_new_session=True
    )


def _wait_until_up(server: Server, name: str, process: subprocess.Popen[bytes], seconds: float) -> None:
    """Until it is ready; another server that got its port answers too, but not by its name."""
    end = time.monotonic() + seconds
    while not (server.is_called(name) and server.answers("/v2/health/ready")):
        if process.poll() is not None:
            raise _not_up(f"ended with {process.returncode}", server, process.returncode)
        if time.monotonic() > end:
            raise _not_up(f"is not ready after {seconds:.0f} s", server)
        time.sleep(0.1)


def _not_up(what: str, server: Server, code: int | None = None) -> ServingError:
    hint = "name a tritonserver for this machine with --server PATH" if code == with_parent.NOT_STARTED else ""
    last = "\n".join(server.log_text().splitlines()[-_LOG_LINES:])
    kind = _PortTakenError if code is not None and _PORT_TAKEN in last else ServingError
    return kind(f"tritonserver {what}; the end of its log:\n{last}", where=server.grpc, hint=hint)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then end it and the stubs that it started."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


def _backends(installed: Installed, folder: Path) -> Path | None:
    """The folder of backends; where the python backend lacks its stub, a copy with both."""
    if installed.stub is None or installed.backends is None:
        return installed.backends
    made = folder / "backends"
    shutil.copytree(installed.backends, made)
    stub = made / "python" / installed.stub.name
    shutil.copy(installed.stub, stub)
    stub.chmod(0o755)
    return made


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
