"""`trtcompress cache`."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import click

from . import options
from .main import say

if TYPE_CHECKING:
    from pathlib import Path

    from ..store import Entry, Store

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SPANS = {"m": 60, "h": 3600, "d": 86400}


@click.group(name="cache")
def command() -> None:
    """The artifact store: what builds reuse. Entries are those of this machine; of a shared store the sum is told."""


def _store(folder: str | None) -> Store:
    from ..api import open_store

    return open_store(folder)


def _tell_shared(store: Store, *, checked: bool = False) -> None:
    """Say how much the shared store holds, or that it does not tell.

    Args:
        store: the one of this machine.
        checked: also that nothing of it was read.
    """
    if store.shared is None or store.shared.away:
        return
    from ..report.table import size

    try:
        entries, held = store.shared.holds()
    except Exception as error:  # of whatever kind the store's own library raises
        say(f"shared store {store.shared.url}: it does not tell what it holds: {error}")
        return
    more = "; each is checked by digest when it is fetched" if checked else ""
    say(f"shared store {store.shared.url}: {entries} entries, {size(held)}{more}")


def _print(entries: list[Entry], root: Path, as_json: bool) -> None:
    from ..outputs import CacheEntries, CacheEntry
    from ..report.table import size
    from .output import print_json, print_table

    if as_json:
        shown = tuple(CacheEntry(key=e.key, stage=e.stage, size_bytes=e.size, used=e.used) for e in entries)
        print_json(CacheEntries(store=str(root), entries=shown))
        return
    print_table(
        ("key", "stage", "size", "last used"),
        [(e.key[:16], e.stage, size(e.size), time.strftime("%Y-%m-%d %H:%M", time.localtime(e.used))) for e in entries],
    )


@command.command(name="ls")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.store
def ls(folder: str | None, as_json: bool) -> None:
    """List the entries, the longest unused first."""
    store = _store(folder)
    _print(store.entries(), store.root, as_json)
    _tell_shared(store)


@command.command(name="gc")
@click.option("--max-size", metavar="SIZE", help="Keep no more than this, for example 5G.")
@click.option("--older-than", metavar="AGE", help="Remove what was not used for this long, for example 30d, 12h.")
@click.option("--json", "as_json", is_flag=True, help="Print what was removed as JSON.")
@options.store
def gc(folder: str | None, max_size: str | None, older_than: str | None, as_json: bool) -> None:
    """Remove entries that were not used for long. With no option: those older than 30 days."""
    if max_size is None and older_than is None:
        older_than = "30d"
    store = _store(folder)
    removed = store.gc(
        None if max_size is None else _measure(max_size.removesuffix("B"), _UNITS, "--max-size"),
        None if older_than is None else _measure(older_than, _SPANS, "--older-than"),
    )
    _print(removed, store.root, as_json)
    say(f"removed {len(removed)} entries, {sum(e.size for e in removed) / 1e6:.1f} MB")
    if store.shared is not None:
        say(f"shared store {store.shared.url}: left as it is; expire its objects by a lifecycle rule of the bucket")


@command.command(name="verify")
@click.option("--json", "as_json", is_flag=True, help="Print the damaged entries as JSON.")
@click.option("--remove", is_flag=True, help="Remove the damaged entries.")
@options.store
def verify(folder: str | None, as_json: bool, remove: bool) -> int:
    """Read every byte and list the entries that are damaged; exit 1 where there are any that stay."""
    store = _store(folder)
    damaged = store.damaged()
    _print(damaged, store.root, as_json)
    for entry in damaged if remove else ():
        store.remove(entry)
    say(f"{len(damaged)} damaged entries{' removed' if remove and damaged else ''}")
    _tell_shared(store, checked=True)
    return 1 if damaged and not remove else 0


def _measure(text: str, units: dict[str, int], option: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]?)", text.strip().lower())
    if match is None or match.group(2) not in units:
        raise click.UsageError(f"{option}: '{text}' is not a number with one of: {', '.join(u for u in units if u)}")
    return int(float(match.group(1)) * units[match.group(2)])
