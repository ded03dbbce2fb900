"""The table of a build: one row a target, for the terminal and for report.md."""

from __future__ import annotations

from typing import Any

from trtcompress_graph.measured import EQUAL_DB

from .pruning import share

COLUMNS = ("target", "engine", "size", "latency", "speedup", "metric", "gates")


def rows(facts: dict[str, Any]) -> list[tuple[str, ...]]:
    """Cells as text, from the record of a build; the pruned model before it is quantized comes first."""
    pruned = [_pruned(facts["pruning"])] if facts["pruning"] else []
    return pruned + [_row(validation) for validation in facts["validations"]]


def _pruned(facts: dict[str, Any]) -> tuple[str, ...]:
    metrics = [f"{m['name']} {m['reference']:.4g} → {m['value']:.4g}" for m in facts["metrics"]]
    return (
        "(pruned)",
        f"float, {share(facts, 'macs')} MACs, {share(facts, 'parameters')} params",
        size(facts["after"]["bytes"]),
        "-",
        f"{facts['speedup']:.2f}x" if facts["speedup"] else "-",
        "; ".join(metrics) or "-",
        "-",
    )


def _row(validation: dict[str, Any]) -> tuple[str, ...]:
    shipped = next(c for c in validation["candidates"] if c["engine"]["encoding"] == validation["shipped"])
    speed = shipped["speeds"][shipped["headline"]] if shipped["speeds"] else None
    emulated = " (emulated)" if shipped["emulated"] else ""
    metrics = [f"{m['name']} {m['reference']:.4g} → {m['value']:.4g}{emulated}" for m in shipped["metrics"]]
    return (
        validation["target"],
        shipped["engine"]["encoding"] + ("" if shipped["engine"]["built"] else ", checked, not built"),
        size(shipped["size_bytes"]),
        f"{speed['engine']['p50']:.3g} ms, batch {speed['engine']['batch']}" if speed else "not measured",
        f"{speed['speedup']:.2f}x" if speed else "not measured",
        "; ".join(metrics) or "-",
        gates(shipped),
    )


def gates(candidate: dict[str, Any]) -> str:
    """`pass`, or the gates that say otherwise."""
    failed = [gate["gate"] for gate in candidate["gates"] if gate["verdict"] == "fail"]
    if failed:
        return f"FAIL: {', '.join(failed)}"
    if candidate["verdict"] == "pass":
        return "pass"
    unlabelled = any(gate["gate"] == "max_metric_drop" for gate in candidate["gates"])
    return "not measured: no metric" if unlabelled else "not measured here"


def signal_to_noise(db: float) -> str:
    """In dB, or in a word what JSON has no number for."""
    if db <= -EQUAL_DB:
        return "no signal"
    return "equal" if db >= EQUAL_DB else f"{db:.1f}"


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
