"""Gates: limits on what was measured. They decide whether a build may ship."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from trtcompress_graph.measured import Gate, MetricResult, OutputParity, Speed, Verdict

DEFAULT_COSINE = 0.99
DEFAULT_DROP = 0.01
DEFAULT_SNR_DB = 10.0
"""An error of a tenth of the output's power. A cosine is blind to size, which this tells: an output that is twice as
large has 0 dB, one half as large 6 dB. INT8 that just keeps the cosine has 17 dB where its size is right."""

TO_PRUNED = "[to pruned]"
"""Ends the name of a gate on the difference from the pruned float model, not from the model as it came."""

EMULATED = "[emulated]"
"""Ends the name of a gate on numbers that ONNX Runtime gave for the graph of an engine that cannot run here."""

ROUNDING = 1e-9
"""A value that misses its limit by no more than this, as a difference of two means can, keeps it."""

_AT_LEAST = ("min_cosine", "min_snr_db", "min_speedup")

_BY_SIZE = 0.9
"""An output is wrong in its size alone where a factor explains this share of the error's power."""


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Limits of the config; None is no limit.

    With none of `max_metric_drop`, `min_cosine` and `min_snr_db` all three are set (0.01, 0.99 and 10 dB), so that a
    build is always checked. A pruned model differs from the model as it came because that was asked for: there the
    default cosine and signal-to-noise ratio are those to the pruned float model, and what the cut costs is for the
    metric to say; without one it is not measured.

    Attributes:
        max_metric_drop: of each metric, in its own unit. It is not kept where the reference's own value is no ground
            to measure a drop from (`MetricResult.doubt`).
        min_cosine: of each output's worst sample.
        min_snr_db: signal-to-noise ratio of each output over all samples, in dB. Unlike a cosine it sees size.
        min_speedup: over the float reference, at each batch size that was timed.
        max_latency_ms: of the median run at the smallest batch size that was timed.
        max_size_mb: of the engine file, in 10^6 bytes.
    """

    max_metric_drop: float | None = None
    min_cosine: float | None = None
    min_snr_db: float | None = None
    min_speedup: float | None = None
    max_latency_ms: float | None = None
    max_size_mb: float | None = None

    @property
    def accuracy_unset(self) -> bool:
        """No limit on accuracy is given, so that the default ones hold."""
        return self.max_metric_drop is None and self.min_cosine is None and self.min_snr_db is None


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
    for gate in _accuracy(limits, parity, metrics, to_pruned):
        if measured and not emulated:
            found.append(gate)
        else:
            found.append(_gate(gate.gate, gate.limit, None))
        if emulated and gate.value is not None:
            found.append(replace(gate, gate=gate.gate + EMULATED))
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
    """The gate in plain words: what was measured, against which limit, by how much it is missed, and why if known."""
    side = "at least" if _at_least(gate.gate) else "at most"
    if gate.value is None:
        return f"{gate.gate}: not measured ({side} {gate.limit:.4g} is asked)"
    if gate.verdict == "pass":
        return f"{gate.gate}: {gate.value:.4g}, {side} {gate.limit:.4g} is asked"
    if _keeps(gate.gate, gate.limit, gate.value):
        return f"{gate.gate}: {gate.note}"
    way = "below" if _at_least(gate.gate) else "above"
    value = f"{gate.value:.4g}"
    if value == f"{gate.limit:.4g}":  # they differ all the same
        value = f"{gate.value:.8g}"
    missed = f"{value} is {abs(gate.value - gate.limit):.4g} {way} the limit of {gate.limit:.4g}"
    return f"{gate.gate}: {missed}{f': {gate.note}' if gate.note else ''}"


def _accuracy(
    limits: GateLimits,
    parity: Sequence[OutputParity],
    metrics: Sequence[MetricResult],
    to_pruned: Sequence[OutputParity] | None,
) -> Iterator[Gate]:
    if not limits.accuracy_unset:
        if limits.max_metric_drop is not None:
            yield from _drop(limits.max_metric_drop, metrics)
        yield from _parity(limits.min_cosine, limits.min_snr_db, parity)
    elif to_pruned is not None:
        yield from _drop(DEFAULT_DROP, metrics)
        yield from _parity(DEFAULT_COSINE, DEFAULT_SNR_DB, to_pruned, TO_PRUNED)
    else:
        if metrics:
            yield from _drop(DEFAULT_DROP, metrics)
        yield from _parity(DEFAULT_COSINE, DEFAULT_SNR_DB, parity)


def _drop(limit: float, metrics: Sequence[MetricResult]) -> Iterator[Gate]:
    for metric in metrics:
        gate = _gate(f"max_metric_drop:{metric.name}", limit, metric.drop)
        yield replace(gate, verdict="fail", note=metric.doubt) if metric.doubt else gate
    if not metrics:
        yield _gate("max_metric_drop", limit, None)


def _parity(
    cosine: float | None, snr_db: float | None, parity: Sequence[OutputParity], suffix: str = ""
) -> Iterator[Gate]:
    if cosine is not None:
        for output in parity:
            yield _gate(f"min_cosine:{output.output}{suffix}", cosine, output.cosine, output.note)
        if not parity:
            yield _gate(f"min_cosine{suffix}", cosine, None)
    if snr_db is not None:
        for output in parity:
            yield _gate(f"min_snr_db:{output.output}{suffix}", snr_db, output.snr_db, output.note or _size(output))
        if not parity:
            yield _gate(f"min_snr_db{suffix}", snr_db, None)


def _size(output: OutputParity) -> str:
    """That the output is wrong in its size, where a factor explains the error: it makes (scale - 1)^2 of the power."""
    if output.scale is None or (output.scale - 1) ** 2 * 10 ** (output.snr_db / 10) < _BY_SIZE:
        return ""
    return f"the outputs are about {output.scale:.2f} times as large as the reference's"


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


def _keeps(name: str, limit: float, value: float) -> bool:
    kept = value >= limit - ROUNDING if _at_least(name) else value <= limit + ROUNDING
    return kept and math.isfinite(value)


def _gate(name: str, limit: float, value: float | None, note: str = "") -> Gate:
    """The note stands with a gate that fails."""
    if value is None:
        return Gate(name, limit, None, "not_measured")
    return Gate(name, limit, value, "pass") if _keeps(name, limit, value) else Gate(name, limit, value, "fail", note)
