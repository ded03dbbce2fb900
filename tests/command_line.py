"""The command line, run in this process (quick) or in one of its own (real), with what it printed kept apart."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from trtcompress.cli import main

PROGRAM = Path(sys.executable).with_name("trtcompress")


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, which has to be one JSON object and nothing else."""
        return json.loads(self.out, parse_constant=lambda name: AssertionError(f"{name} is not JSON"))


def trtcompress(*args: object, cwd: Path | None = None) -> Ran:
    """Run a command in this process, which `leave` may not end: what still works after an error is waited for."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(main, "leave", lambda code: code),
    ):
        try:
            code = main.run([str(arg) for arg in args])
        except SystemExit as left:
            code = int(left.code or 0)
    for thread in threading.enumerate():
        if thread.name.startswith("stage"):
            thread.join(60)
            assert not thread.is_alive(), f"{thread.name} works on after the command is done"
    return Ran(code, out.getvalue(), err.getvalue())


def done(*args: object, cwd: Path | None = None) -> Ran:
    """The same, and it has to go well."""
    ran = trtcompress(*args, cwd=cwd)
    assert ran.code == 0, f"exit {ran.code} of {args}:\n{ran.err}"
    return ran


def start(*args: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the installed program, in a process group of its own as a shell does."""
    return subprocess.Popen(
        [str(PROGRAM), *(str(arg) for arg in args)],
        cwd=cwd,
        env={**environment(), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,
    )


def heed_signals() -> None:
    """As from a terminal: what a shell starts in the background, or `nohup`, ignores some, and so do its children."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def program(*args: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
    """Run the installed program to its end."""
    process = start(*args, cwd=cwd, env=env)
    out, err = process.communicate(timeout=840)
    return Ran(process.returncode, out, err)


def environment() -> dict[str, str]:
    """This environment without what would change how the program prints."""
    changed = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "TRTCOMPRESS_TRACEBACK")
    return {name: value for name, value in os.environ.items() if name not in changed}


def refused(ran: Ran, code: int, *words: str) -> None:
    """It ended with that code, in words, with something to do."""
    assert ran.code == code, ran.err
    for word in (*words, "hint: "):
        assert word in ran.err
    assert "Traceback" not in ran.err
