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
class Spread:
    """Median and 99th percentile of a time, in milliseconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class GpuClocks:
    """Clocks of a GPU before and after it was timed, in MHz; None where they are not known.

    Attributes:
        sm: of the multiprocessors.
        memory: of the memory.
        locked: whether the driver holds them to a setting. Where it does not they follow load and heat, and two
            measurements of one engine may differ.
    """

    sm: tuple[int, int] | None = None
    memory: tuple[int, int] | None = None
    locked: bool | None = None


@dataclass(frozen=True, slots=True)
class GpuTimes:
    """Where the time of a batch goes on a GPU, by events on a stream.

    Attributes:
        compute: the engine alone; inputs and outputs stay on the device.
        to_device: copies of the inputs alone, from pinned memory.
        to_host: copies of the outputs alone, into pinned memory.
        throughput: samples a second where launches follow one another and nothing is copied.
        cuda_graph: whether `compute` is a replay of a captured CUDA graph; else each kernel was launched by the host.
        note: why there is no CUDA graph; empty where there is one.
    """

    compute: Spread
    to_device: Spread
    to_host: Spread
    throughput: float
    cuda_graph: bool
    note: str = ""
    clocks: GpuClocks = GpuClocks()


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of one batch in milliseconds, and samples per second at the median.

    Attributes:
        gpu: what of it is copies and what the engine alone; None where no GPU ran it. The times before are those of
            one batch from the host's memory and back to it then.
    """

    batch: int
    p50: float
    p90: float
    p99: float
    throughput: float
    gpu: GpuTimes | None = None


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
