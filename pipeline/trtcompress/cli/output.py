"""Data for stdout: JSON of a settings model, or a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
from pydantic import BaseModel

SHOWN = 3
"""Names of a long list that a table shows; --json prints them all."""


def few(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def print_json(value: BaseModel) -> None:
    """Print one JSON object."""
    click.echo(value.model_dump_json(indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table, or nothing where there are no rows.

    It is as wide as its cells need where stdout is no terminal; where it is one, no cell is cut short.
    """
    import sys

    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    if not table.row_count:
        return
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table, markup=False, highlight=False)
