"""What was measured of an engine against the model that the user started from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "fail", "not_measured"]

EQUAL_DB = 999.0
"""Stands for an infinite signal-to-noise ratio; -999 for an output that is not a number."""


@dataclass(frozen=True, slots=True)
class OutputParity:
    """How far one output is from the reference, over all samples compared.

    Attributes:
        max_abs: greatest absolute difference.
        max_rel: greatest difference relative to the reference value.
        cosine: least cosine similarity of a sample's output (1 where both are zero).
        snr_db: signal-to-noise ratio in dB over all values; infinity where equal is written as 999.
        scale: the factor that brings the reference nearest to the engine (least squares over all values): 2 where
            the engine gives twice the reference; None where the reference is zero or the two cannot be compared.
        note: what is plainly wrong with it, in words; empty where nothing is.
    """

    output: str
    max_abs: float
    max_rel: float
    cosine: float
    snr_db: float
    scale: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of one batch in milliseconds, and samples per second at the median."""

    batch: int
    p50: float
    p90: float
    p99: float
    throughput: float


@dataclass(frozen=True, slots=True)
class Speed:
    """Engine and reference, timed in one interleaved run; `speedup` is the median of the ratios pair by pair."""

    engine: Latency
    reference: Latency
    speedup: float


@dataclass(frozen=True, slots=True)
class MetricResult:
    """A metric of the reference and of the engine on the same samples.

    Attributes:
        ci: 95 % confidence interval of `value`.
        drop: how much worse the engine is; negative where it is better.
        drop_ci: 95 % confidence interval of `drop`, from the paired samples.
        doubt: why the reference's own value is no ground to measure a drop from; empty where it is one.
    """

    name: str
    reference: float
    value: float
    ci: tuple[float, float]
    drop: float
    drop_ci: tuple[float, float]
    samples: int
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit from the config and what was measured; `value` is None where nothing could be.

    Attributes:
        note: what lies behind a failure, in words, where that is known.
    """

    gate: str
    limit: float
    value: float | None
    verdict: Verdict
    note: str = ""
