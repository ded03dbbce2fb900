"""Becomes a program that ends with the one that started it: `python -IS with_parent.py PARENT ENVIRONMENT PROGRAM ...`.

A program of its own, and no `preexec_fn`: what libraries do at a fork (gRPC, torch) is not safe beside their threads.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

NOT_STARTED = 126
"""Exit code where the program cannot be run, as of a shell."""

_SET_PARENT_DEATH_SIGNAL = 1


def end_with_parent(by: signal.Signals) -> None:
    """Have the kernel send this process a signal when the thread that started it is gone; only Linux can."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_SET_PARENT_DEATH_SIGNAL, by)


def main(parent: str, environment: str, *command: str) -> None:
    """Become the command.

    Args:
        parent: process that started this one.
        environment: variables that the command gets beside those of this process, as a JSON object.
        command: path of the program, and its arguments.
    """
    end_with_parent(signal.SIGTERM)
    if os.getppid() != int(parent):  # gone before it could be told
        sys.exit(NOT_STARTED)
    try:
        os.execve(command[0], command, {**os.environ, **json.loads(environment)})
    except OSError as error:
        print(f"it cannot be started: {error.strerror}", flush=True)
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main(*sys.argv[1:])
