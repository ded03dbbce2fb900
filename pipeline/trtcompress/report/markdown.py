"""report.md, from the record of a build."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import gpu
from .pruning import layers, share
from .table import COLUMNS, rows, signal_to_noise, size
from .training import change

if TYPE_CHECKING:
    from jinja2 import Template


def markdown(facts: dict[str, Any]) -> str:
    """Text of report.md."""
    words = {"megabytes": size, "decibels": signal_to_noise, "share": share, "layers": layers, "change": change}
    tables = {
        "columns": COLUMNS,
        "rows": rows(facts),
        "gpu_columns": gpu.COLUMNS,
        "gpu_rows": _gpu_rows,
        "baseline": gpu.BASELINE,
    }
    return _template().render(**facts, **tables, **words)


def _gpu_rows(candidate: dict[str, Any]) -> list[tuple[str, ...]]:
    engines = [speed["engine"] for speed in candidate["speeds"]]
    return gpu.rows([(engine["batch"], engine.get("gpu")) for engine in engines])


@cache
def _template() -> Template:
    from jinja2 import Environment

    environment = Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    return environment.from_string(Path(__file__).with_name("report.md.j2").read_text(encoding="utf-8"))
