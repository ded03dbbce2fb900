"""The address of a Ray cluster: whether Ray listens there."""

from __future__ import annotations

import os
import re
import socket

from trtcompress_graph.errors import UnreachableError, UsageError

_ADDRESS = re.compile(r"(?:ray://)?([A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")
_KNOCK = 10.0
"""Seconds in which it has to answer."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = b"\x04"


def knock(address: str) -> None:
    """Refuse an address where no Ray listens: Ray itself would try for minutes.

    Both of its ports speak gRPC, so HTTP/2: either side begins with a frame of settings (RFC 9113, section 3.4).

    Raises:
        UsageError: this is no address.
        UnreachableError: nothing listens there, or something else.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) < 65536:
        hint = "such as --address head-node:6379, or ray://head-node:10001 from outside the cluster"
        raise UsageError(f"'{address}' is not HOST:PORT", where="--address", hint=hint)
    try:
        with socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=_KNOCK) as connection:
            if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
                connection.sendall(_PREFACE)
                if connection.recv(4)[3:] != _SETTINGS:
                    raise no_answer(address, "what listens there is not Ray")
    except OSError as error:
        raise no_answer(address, error.strerror or str(error)) from None


def head_answers(address: str) -> bool:
    """Whether the head of the cluster lives. Ray itself tries for a minute where it does not, and ends the process."""
    try:
        knock(address)
    except UnreachableError:
        return False
    return True


def no_answer(address: str, why: str) -> UnreachableError:
    """That a cluster does not answer, and what to try."""
    where = "the Ray cluster on this machine" if address == "auto" else f"the Ray cluster {address}"
    return UnreachableError(
        f"it does not answer: {why}",
        where=where,
        hint="this has to work: ray status --address HOST:PORT; a cluster of one machine: ray start --head",
    )
