"""A real Triton Inference Server for tests, from the wheel `nvidia-pytriton`, without a GPU."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from assets import asset

DIST = "nvidia-pytriton"
START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    http: str
    grpc: str
    log: Path

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def answers(self, path: str) -> bool:
        """Whether the server answers 200 to a GET of this path."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def live(self) -> bool:
        return self.answers("/v2/health/live")

    def model_ready(self, name: str) -> bool:
        return self.answers(f"/v2/models/{name}/ready")


@contextmanager
def tritonserver(repository: Path, *arguments: str) -> Iterator[Server]:
    """Serve a model repository on 127.0.0.1; models that fail to load do not end the server.

    Raises:
        RuntimeError: the server did not come up.
    """
    home = _installed()
    http, grpc = _free_ports(2)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        command = [
            *(str(home / "bin/tritonserver"), "--model-repository", str(repository)),
            *("--backend-directory", str(home / "backends"), "--allow-metrics", "false"),
            *("--http-address", "127.0.0.1", "--http-port", str(http)),
            *("--grpc-address", "127.0.0.1", "--grpc-port", str(grpc)),
            *("--exit-on-error", "false", "--strict-readiness", "false", "--exit-timeout-secs", "5"),
            *arguments,
        ]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_environment(),
                cwd=sysconfig.get_path("purelib"),  # the embedded Python ignores PYTHONPATH but looks here first
                start_new_session=True,
            )
        server = Server(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", log)
        try:
            _wait_until_up(server, process)
            yield server
        finally:
            _stop(process)


def _wait_until_up(server: Server, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_SECONDS
    while not server.answers("/v2/health/ready"):
        if process.poll() is not None:
            raise RuntimeError(f"tritonserver ended with {process.returncode}:\n{server.log_text()}")
        if time.monotonic() > end:
            raise RuntimeError(f"tritonserver is not ready after {START_SECONDS} s:\n{server.log_text()}")
        time.sleep(0.1)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to end, then end it and the stubs that it started."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


@cache
def _installed() -> Path:
    """A folder with the server and its python backend for the running Python, laid out as Triton wants it."""
    packaged = asset(DIST, "tritonserver/bin/tritonserver").parents[1]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = packaged / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise RuntimeError(f"{DIST} has no stub of the python backend for Python {version}")
    home = Path(tempfile.mkdtemp(prefix="tritonserver-"))
    atexit.register(shutil.rmtree, home)
    shutil.copytree(packaged / "bin", home / "bin")
    shutil.copytree(packaged / "backends/python", home / "backends/python")
    shutil.copy(stub, home / "backends/python")
    for binary in (home / "bin/tritonserver", home / "backends/python" / stub.name):
        binary.chmod(0o755)
    return home


def _environment() -> dict[str, str]:
    """What the server's own libraries and the stub's embedded Python need to be found."""
    library = Path(sysconfig.get_config_var("LIBDIR"), f"libpython{sys.version_info.major}.{sys.version_info.minor}.so")
    if not any(library.parent.glob(f"{library.name}*")):
        raise RuntimeError(f"this Python has no {library.name}, which Triton's python backend loads: build it shared")
    bundled = asset(DIST, "tritonserver/bin/tritonserver").parents[3] / "nvidia_pytriton.libs"
    return {
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": f"{bundled}:{library.parent}",
        "PYTHONHOME": sys.base_prefix,
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
