"""The reports of a build that another machine brought something for: report.md has a section for each device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .files import write_text
from .report import REPORT
from .report.gpu import BASELINE
from .report.junit import junit_xml
from .report.markdown import markdown
from .report.table import size
from .store import store_errors

COLUMNS = ("engine", "size", "batch", "p50 ms", "p90 ms", "p99 ms", "samples/s", "speedup", "memory MB", "power W")


def write_again(build_dir: Path, facts: dict[str, Any]) -> None:
    """Write report.md, junit.xml and report.json anew; each file is the old one or the new one.

    Args:
        build_dir: of the build.
        facts: its record.

    Raises:
        StoreError: they cannot be written.
    """
    with store_errors(build_dir):
        write_text(build_dir / "report.md", with_devices(facts))
        write_text(build_dir / "junit.xml", junit_xml(facts))
        write_text(build_dir / REPORT, json.dumps(facts, indent=1) + "\n")


def with_devices(facts: dict[str, Any]) -> str:
    """Text of report.md."""
    sections = [_section(target, device) for target, device in facts.get("devices", {}).items()]
    return "\n".join([markdown(facts).rstrip("\n") + "\n", *sections])


def _section(target: str, device: Mapping[str, Any]) -> str:
    about = device["device"]
    where = ", ".join(filter(None, (about["model"], about["release"], f"TensorRT {about['tensorrt']}")))
    lines = [f"## On the device: {target}", "", f"{where}; {device['golden']} golden samples.", ""]
    lines += [_row(COLUMNS), _row(["---"] * len(COLUMNS))]
    lines += [_row(cells) for engine in device["engines"] for cells in _cells(engine)]
    lines += ["", f"The speedup is over the model as it came, {BASELINE}, on the same device."]
    left_out = [f"{e['encoding']}: built without: {what}" for e in device["engines"] for what in e.get("left_out", ())]
    streams = [
        f"{e['encoding']}: weights were streamed, with {size(e['streamed_budget'])} of them in GPU memory"
        for e in device["engines"]
        if e.get("streamed_budget") is not None
    ]
    notes = [*device["notes"], *left_out, *streams]
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def _cells(engine: Mapping[str, Any]) -> Iterator[list[str]]:
    """A row a batch size."""
    memory, power = (_number(engine[name]) for name in ("ram_mb", "power_w"))
    for speed in engine["speeds"]:
        mine = speed["engine"]
        times = [f"{mine[name]:.4g}" for name in ("p50", "p90", "p99", "throughput")]
        head = [engine["encoding"], size(engine["size_bytes"]), str(mine["batch"])]
        yield [*head, *times, f"{speed['speedup']:.2f}", memory, power]


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
