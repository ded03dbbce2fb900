"""Times on a GPU alone, as cells of a table: for the terminal and for report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = (
    "batch",
    "engine alone, p50 ms",
    "p99 ms",
    "samples/s",
    "copy in, p50 ms",
    "p99 ms",
    "copy out, p50 ms",
    "p99 ms",
    "launched",
    "clocks, MHz",
)
BASELINE = "in FP32 (TF32 where the card has it)"
"""The model as it came, on a GPU: what TensorRT makes of it by itself."""


def rows(times: Sequence[tuple[int, Mapping[str, Any] | None]]) -> list[tuple[str, ...]]:
    """A row for each batch size that a GPU ran, and its times, as `GpuTimes` stands in JSON."""
    return [(str(batch), *_cells(told)) for batch, told in times if told is not None]


def _cells(told: Mapping[str, Any]) -> tuple[str, ...]:
    spreads = {name: _spread(told[name]) for name in ("compute", "to_device", "to_host")}
    launched = "as a CUDA graph" if told["cuda_graph"] else f"kernel by kernel ({told['note']})"
    rate = f"{told['throughput']:.4g}"
    return (*spreads["compute"], rate, *spreads["to_device"], *spreads["to_host"], launched, clocks(told["clocks"]))


def _spread(told: Mapping[str, float]) -> tuple[str, str]:
    return f"{told['p50']:.4g}", f"{told['p99']:.4g}"


def clocks(told: Mapping[str, Any]) -> str:
    """Clocks before and after in words, and whether they could change between."""
    parts = [f"{name} {_change(told[key])}" for key, name in (("sm", "SM"), ("memory", "memory")) if told[key]]
    if not parts:
        return "not known"
    held = {True: "locked", False: "not locked", None: "not known whether locked"}[told["locked"]]
    return ", ".join([*parts, held])


def _change(pair: Sequence[int]) -> str:
    before, after = pair
    return str(before) if before == after else f"{before} → {after}"
