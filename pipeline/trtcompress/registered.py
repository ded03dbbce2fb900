"""Entries of a registry by the name that a user gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from trtcompress_graph.errors import UsageError

Entry = TypeVar("Entry")


def registered(entries: Mapping[str, Entry], name: str, what: str) -> Entry:
    """The entry of that name.

    Args:
        entries: by name.
        name: as the user wrote it.
        what: the entries are, in the singular: also the key of the config.

    Raises:
        UsageError: there is none.
    """
    if name not in entries:
        raise UsageError(f"there is no {what} '{name}'", where=what, hint=f"one of {', '.join(sorted(entries))}")
    return entries[name]
