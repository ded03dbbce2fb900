"""Another machine over SSH: the user's own `ssh`, with their keys and config, and never a prompt."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from typing import IO

from trtcompress_graph.errors import (
    HostLostError,
    LoginError,
    RemoteError,
    RemoteSpaceError,
    UnreachableError,
    UsageError,
)

SSH = "TRTCOMPRESS_SSH"
"""Variable with the command that is run in place of `ssh`, such as `ssh -F config`."""

_OPTIONS = ("BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=15", "ServerAliveCountMax=4")
_ADDRESS = re.compile(r"(?:([A-Za-z0-9_][\w.-]*)@)?([A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")
_SSH_FAILED = 255
_FULL = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True, slots=True)
class Remote:
    """Where to connect to; what is not given is left to the user's SSH config."""

    user: str
    host: str
    port: int | None

    def __str__(self) -> str:
        """As it was typed."""
        return f"{self._login}:{self.port}" if self.port else self._login

    @property
    def _login(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def arguments(self) -> list[str]:
        """For `ssh`."""
        port = ["-p", str(self.port)] if self.port else []
        host = self.host.strip("[]")
        return [*port, "--", f"{self.user}@{host}" if self.user else host]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script on the other machine came to."""

    code: int
    out: str
    err: str

    def told(self, key: str) -> list[str]:
        """What it said under a key (see remote_scripts.py); login scripts may say more beside it."""
        start = f"trtcompress: {key} "
        return [line.removeprefix(start) for line in self.out.splitlines() if line.startswith(start)]


def parse_remote(text: str) -> Remote:
    """`user@host:port`; user and port may be left out.

    Raises:
        UsageError: it is not of that form.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or (match[3] and not 0 < int(match[3]) < 65536):
        raise UsageError(
            f"'{text}' is not user@host[:port]", where="--remote", hint="such as --remote me@gpu-server:22"
        )
    return Remote(match[1] or "", match[2], int(match[3]) if match[3] else None)


def call(
    remote: Remote,
    script: str,
    doing: str,
    *,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    first: bool = False,
) -> Answer:
    """Run a script with the `sh` of the other machine.

    Args:
        remote: the machine.
        script: POSIX shell.
        doing: what it is for, in words, where it fails.
        stdin: given to it.
        stdout: takes what it writes, which is text where this is None.
        first: whether nothing is known yet of the machine, which may not answer at all.

    Raises:
        UnreachableError, LoginError: there is no connection.
        HostLostError: it broke.
        RemoteSpaceError: no space there.
    """
    options = [argument for option in _OPTIONS for argument in ("-o", option)]
    command = [*shlex.split(os.environ.get(SSH) or "ssh"), "-T", *options, *remote.arguments]
    try:
        ran = subprocess.run(
            [*command, f"exec sh -c {shlex.quote(script)}"],
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError:
        raise RemoteError(
            f"there is no program '{command[0]}' here", where="--remote", hint="apt-get install openssh-client"
        ) from None
    answer = Answer(ran.returncode, (ran.stdout or b"").decode(errors="replace"), ran.stderr.decode(errors="replace"))
    if ran.returncode == _SSH_FAILED:
        raise _no_connection(remote, answer.err, doing, first)
    if ran.returncode and any(full in answer.err + answer.out for full in _FULL):
        raise no_space(remote, doing)
    return answer


def no_space(remote: Remote, doing: str) -> RemoteSpaceError:
    """That there is no space."""
    return RemoteSpaceError(
        f"no space left there ({doing}); nothing half-written counts",
        where=str(remote),
        hint="free some space in ~/.cache/trtcompress/remote and its disk there, then the same command goes on",
    )


def _no_connection(remote: Remote, said: str, doing: str, first: bool) -> RemoteError:
    why = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "ssh has not said why")
    check = f"this has to work without a question: ssh {shlex.join(remote.arguments[:-2])} {remote.arguments[-1]} true"
    check = check.replace("  ", " ")
    if "Host key verification failed" in said or "IDENTIFICATION HAS CHANGED" in said:
        changed = "has changed" if "IDENTIFICATION HAS CHANGED" in said else "is not known here"
        hint = f"connect by hand once and compare the fingerprint; {check}"
        return LoginError(f"its host key {changed}", where=str(remote), hint=hint)
    if "Permission denied" in said or "Too many authentication failures" in said:
        hint = f"put your public key there with ssh-copy-id; {check}"
        return LoginError(f"it refuses us: {why}", where=str(remote), hint=hint)
    if first:
        return UnreachableError(f"it does not answer: {why}", where=str(remote), hint=check)
    return HostLostError(
        f"the connection broke ({doing}): {why}", where=str(remote), hint="the same command goes on from there"
    )
