"""What `validate` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trtcompress_graph.measured import GpuTimes

from ..config import Settings
from ..outcome import GateResult, MetricValue

if TYPE_CHECKING:
    pass


class OutputDifference(Settings):
    """How far one output is from the reference."""

    output: str
    max_abs: float
    max_rel: float
    cosine: float
    snr_db: float
    scale: float | None = Field(None, description="the factor by which the reference comes nearest to it")


class BatchSpeed(Settings):
    """Times at one batch size, in milliseconds."""

    batch: int
    p50: float
    p90: float
    p99: float
    throughput: float
    reference_p50: float
    speedup: float
    gpu: GpuTimes | None = Field(description="the engine and the copies alone; null where no GPU ran it")


class ValidationResult(Settings):
    """What `validate` found."""

    verdict: Literal["pass", "fail", "not_measured"]
    emulated: bool
    outputs: tuple[OutputDifference, ...]
    metrics: dict[str, MetricValue]
    speeds: tuple[BatchSpeed, ...]
    gates: tuple[GateResult, ...]
    notes: tuple[str, ...]
