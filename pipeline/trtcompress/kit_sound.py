"""What no device can have measured: results that contradict themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from trtcompress_graph.measured import EQUAL_DB, Latency, OutputParity, Speed

if TYPE_CHECKING:
    from .kit_results import KitEngine, KitMetric, KitResults

_ROUNDING = 1e-4
"""How far a cosine that is computed in float32 may lie beyond 1."""


def contradictions(results: KitResults) -> Iterator[str]:
    """What cannot be so, each in words that begin with where it stands; none in what a kit writes."""
    yield from _twice("engines", (engine.encoding for engine in results.engines))
    for engine in results.engines:
        for said in _of_engine(engine, results.golden):
            yield f"{engine.encoding}: {said}"


def _of_engine(engine: KitEngine, golden: int) -> Iterator[str]:
    for name, parities in (("parity", engine.parity), ("to_pruned", engine.to_pruned or ())):
        yield from _twice(name, (parity.output for parity in parities))
        for parity in parities:
            yield from _of_parity(f"{name} of '{parity.output}'", parity)
    yield from _twice("metrics", (metric.name for metric in engine.metrics))
    for metric in engine.metrics:
        yield from _of_metric(metric, golden)
    yield from _twice("speeds of batch", (str(speed.engine.batch) for speed in engine.speeds))
    for speed in engine.speeds:
        yield from _of_speed(speed)


def _of_parity(where: str, parity: OutputParity) -> Iterator[str]:
    if abs(parity.cosine) > 1 + _ROUNDING:
        yield f"{where}: a cosine of {parity.cosine:g}"
    if abs(parity.snr_db) > EQUAL_DB:
        yield f"{where}: a signal-to-noise ratio of {parity.snr_db:g} dB"
    if parity.max_abs < 0 or parity.max_rel < 0:
        yield f"{where}: a greatest difference below 0"


def _of_metric(metric: KitMetric, golden: int) -> Iterator[str]:
    counts = len(metric.reference_hits), len(metric.hits)
    if counts[0] != counts[1]:
        yield f"metric '{metric.name}': {counts[1]} samples of the engine and {counts[0]} of the reference"
    elif counts[0] > golden:
        yield f"metric '{metric.name}': {counts[0]} samples, of {golden} golden ones"


def _of_speed(speed: Speed) -> Iterator[str]:
    where = f"speed of batch {speed.engine.batch}"
    if speed.engine.batch != speed.reference.batch:
        yield f"{where}: the reference's is of batch {speed.reference.batch}"
    if speed.engine.batch < 1 or speed.speedup <= 0:
        yield f"{where}: a batch or a speedup that is not above 0"
    for who, latency in (("engine", speed.engine), ("reference", speed.reference)):
        yield from _of_latency(f"{where}, {who}", latency)


def _of_latency(where: str, latency: Latency) -> Iterator[str]:
    if not 0 < latency.p50 <= latency.p90 <= latency.p99:
        yield f"{where}: latencies that do not rise from p50 to p99, or are not above 0"
    if latency.throughput <= 0:
        yield f"{where}: a throughput that is not above 0"


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{what}: '{name}' is there {count} times"
