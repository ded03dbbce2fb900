"""Gates: limits on what was measured. They decide whether a build may ship."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trtcompress_graph.measured import Gate, MetricResult, OutputParity, Speed, Verdict

DEFAULT_COSINE = 0.99
DEFAULT_DROP = 0.01
TO_PRUNED = "[to pruned]"
"""Ends the name of a gate on the difference from the pruned float model, not from the model as it came."""

EMULATED = "[emulated]"
"""Ends the name of a gate on numbers that ONNX Runtime gave for the graph of an engine that cannot run here."""

ROUNDING = 1e-9
"""A value that misses its limit by no more than this, as a difference of two means can, keeps it."""

_AT_LEAST = ("min_cosine", "min_speedup")


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Limits of the config; None is no limit.

    With neither `max_metric_drop` nor `min_cosine` both are set (0.01 and 0.99), so that a build is always checked.
    A pruned model differs from the model as it came because that was asked for: there the default cosine is that to
    the pruned float model, and what the cut costs is for the metric to say; without one it is not measured.

    Attributes:
        max_metric_drop: of each metric, in its own unit.
        min_cosine: of each output's worst sample.
        min_speedup: over the float reference, at each batch size that was timed.
        max_latency_ms: of the median run at the smallest batch size that was timed.
        max_size_mb: of the engine file, in 10^6 bytes.
    """

    max_metric_drop: float | None = None
    min_cosine: float | None = None
    min_speedup: float | None = None
    max_latency_ms: float | None = None
    max_size_mb: float | None = None


def judge(
    limits: GateLimits,
    *,
    parity: Sequence[OutputParity],
    metrics: Sequence[MetricResult],
    speeds: Sequence[Speed],
    size_bytes: int | None,
    emulated: bool,
    measured: bool,
    to_pruned: Sequence[OutputParity] | None = None,
) -> tuple[Gate, ...]:
    """Hold what was measured against the limits.

    Args:
        limits: from the config.
        parity: of each output; empty where nothing was compared.
        metrics: of the user; empty where there are no labels.
        speeds: of each batch size; empty where nothing was timed.
        size_bytes: of the engine; None where there is no engine file.
        emulated: parity and metrics come from the engine's graph in ONNX Runtime and not from the engine.
        measured: the engine itself was run.
        to_pruned: parity with the pruned float model; None where nothing was pruned.

    Returns:
        The gates. Accuracy that was emulated only stands twice: `not_measured` for the engine, and judged under
        a name that ends in `[emulated]`.
    """
    found: list[Gate] = []
    unset = limits.max_metric_drop is None and limits.min_cosine is None
    if unset and to_pruned is not None:
        accuracy = [*_drop(DEFAULT_DROP, metrics), *_cosine(DEFAULT_COSINE, to_pruned, TO_PRUNED)]
    else:
        accuracy = [*_accuracy(limits, parity, metrics)]
    for gate in accuracy:
        if measured and not emulated:
            found.append(gate)
        else:
            found.append(_gate(gate.gate, gate.limit, None))
        if emulated and gate.value is not None:
            found.append(Gate(gate.gate + EMULATED, gate.limit, gate.value, gate.verdict))
    found.extend(_speed(limits, speeds if measured else ()))
    if limits.max_size_mb is not None:
        found.append(_gate("max_size_mb", limits.max_size_mb, None if size_bytes is None else size_bytes / 1e6))
    return tuple(found)


def verdict(gates: Iterable[Gate]) -> Verdict:
    """Fail where any gate fails; not measured where any could not be, or where there is none; else pass."""
    seen = {gate.verdict for gate in gates}
    if "fail" in seen:
        return "fail"
    return "pass" if seen == {"pass"} else "not_measured"


def explain(gate: Gate) -> str:
    """The gate in plain words: what was measured, against which limit, and by how much it is missed."""
    side = "at least" if _at_least(gate.gate) else "at most"
    if gate.value is None:
        return f"{gate.gate}: not measured ({side} {gate.limit:.4g} is asked)"
    if gate.verdict == "pass":
        return f"{gate.gate}: {gate.value:.4g}, {side} {gate.limit:.4g} is asked"
    way = "below" if _at_least(gate.gate) else "above"
    value = f"{gate.value:.4g}"
    if value == f"{gate.limit:.4g}":  # they differ all the same
        value = f"{gate.value:.8g}"
    return f"{gate.gate}: {value} is {abs(gate.value - gate.limit):.4g} {way} the limit of {gate.limit:.4g}"


def _accuracy(limits: GateLimits, parity: Sequence[OutputParity], metrics: Sequence[MetricResult]) -> Iterator[Gate]:
    unset = limits.max_metric_drop is None and limits.min_cosine is None
    drop = DEFAULT_DROP if unset and metrics else limits.max_metric_drop
    cosine = DEFAULT_COSINE if unset else limits.min_cosine
    if drop is not None:
        yield from _drop(drop, metrics)
    if cosine is not None:
        yield from _cosine(cosine, parity)


def _drop(limit: float, metrics: Sequence[MetricResult]) -> Iterator[Gate]:
    for metric in metrics:
        yield _gate(f"max_metric_drop:{metric.name}", limit, metric.drop)
    if not metrics:
        yield _gate("max_metric_drop", limit, None)


def _cosine(limit: float, parity: Sequence[OutputParity], suffix: str = "") -> Iterator[Gate]:
    for output in parity:
        yield _gate(f"min_cosine:{output.output}{suffix}", limit, output.cosine)
    if not parity:
        yield _gate(f"min_cosine{suffix}", limit, None)


def _speed(limits: GateLimits, speeds: Sequence[Speed]) -> Iterator[Gate]:
    if limits.min_speedup is not None:
        for speed in speeds:
            yield _gate(f"min_speedup:batch{speed.engine.batch}", limits.min_speedup, speed.speedup)
        if not speeds:
            yield _gate("min_speedup", limits.min_speedup, None)
    if limits.max_latency_ms is not None:
        if speeds:
            first = min((speed.engine for speed in speeds), key=lambda latency: latency.batch)
            yield _gate(f"max_latency_ms:batch{first.batch}", limits.max_latency_ms, first.p50)
        else:
            yield _gate("max_latency_ms", limits.max_latency_ms, None)


def _at_least(name: str) -> bool:
    return name.startswith(_AT_LEAST)


def _gate(name: str, limit: float, value: float | None) -> Gate:
    if value is None:
        return Gate(name, limit, None, "not_measured")
    kept = value >= limit - ROUNDING if _at_least(name) else value <= limit + ROUNDING
    return Gate(name, limit, value, "pass" if kept and math.isfinite(value) else "fail")
