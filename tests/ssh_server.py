"""A real sshd on a free port of loopback, with keys of its own, as the user who runs the tests."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from s3_server import free_port, wait_for_port

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
MISSING = "there is no sshd here: apt-get install openssh-server"

CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv PATH={folder}/bin:/usr/bin:/bin XDG_CACHE_HOME={folder}/cache HOME={folder}/home
"""

CLIENT = """\
Host *
  IdentityFile {folder}/key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
"""

TRTEXEC = """\
#!/bin/sh
# Stands for TensorRT's trtexec: its plan is made of its arguments and of what it was given to read.
for argument; do
    case $argument in
        --onnx=*) onnx=${argument#--onnx=} ;;
        --saveEngine=*) plan=${argument#--saveEngine=} ;;
    esac
done
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v101300]"
[ "$1" != --help ] || exit 0
"""


@dataclass
class SshServer:
    """The machine with the card, as far as SSH tells.

    Attributes:
        folder: keys, `bin/` for its PATH, `cache/` for what is sent to it.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def ssh(self) -> str:
        """For TRTCOMPRESS_SSH."""
        return f"ssh -F {self.folder}/client_config"

    @property
    def kept(self) -> Path:
        return self.folder / "cache/trtcompress/remote"

    def start(self) -> SshServer:
        """Make keys, and serve."""
        assert SSHD is not None
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # what Debian's start script makes
        for name in ("bin", "cache", "home"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name in ("host_key", "key", "other_key"):
            if not (self.folder / name).exists():
                self._keygen(self.folder / name)
        public = {name: (self.folder / f"{name}.pub").read_text() for name in ("host_key", "key")}
        self.authorize(public["key"])
        self.know(public["host_key"])
        (self.folder / "sshd_config").write_text(CONFIG.format(port=self.port, folder=self.folder))
        (self.folder / "client_config").write_text(CLIENT.format(folder=self.folder))
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=log)
        wait_for_port(self.port)
        return self

    def stop(self) -> None:
        """End it with all its sessions, but not what runs in them: so does a connection that breaks."""
        assert self.process is not None
        self.hang_up()
        self.process.kill()
        self.process.wait()

    def hang_up(self) -> None:
        """Break the connections that are open."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if child.name() == "sshd":
                os.kill(child.pid, signal.SIGKILL)

    def authorize(self, key: str) -> None:
        (self.folder / "authorized_keys").write_text(key)

    def know(self, key: str) -> None:
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}" if key else "")

    def program(self, name: str, text: str) -> None:
        """Put a program on its PATH."""
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def trtexec(self, then: str = 'cat "$onnx" > "$plan"; echo "$*" >> "$plan"') -> None:
        """Give it a trtexec that does this."""
        self.program("trtexec", f"{TRTEXEC}{then}\n")

    def _keygen(self, path: Path) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)


@contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    """A server, and a trtcompress that reaches it."""
    started = SshServer(folder).start()
    monkeypatch.setenv("TRTCOMPRESS_SSH", started.ssh)
    yield started
    started.stop()
