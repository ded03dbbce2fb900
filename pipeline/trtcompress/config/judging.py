"""The sections `gates` and `measure`."""

from __future__ import annotations

from pydantic import (
    Field,
)

from .forms import Settings


class GateSettings(Settings):
    """Limits that decide the exit code, against the model that the build started from.

    Without max_metric_drop, min_cosine and min_snr_db: min_cosine 0.99, min_snr_db 10, and max_metric_drop 0.01 with a
    metric. Where pruning is configured, both are then taken to the pruned model before quantization: what it cuts is
    judged by the metric.
    """

    max_metric_drop: float | None = None
    min_cosine: float | None = Field(None, ge=-1, le=1)
    min_snr_db: float | None = Field(
        None,
        allow_inf_nan=False,
        description="signal-to-noise ratio of each output in dB; it sees a wrong size, to which a cosine is blind: "
        "20 dB is an error of a hundredth of the power, twice the output is 0 dB, half of it 6 dB",
    )
    min_speedup: float | None = Field(None, gt=0)
    max_latency_ms: float | None = Field(None, gt=0)
    max_size_mb: float | None = Field(None, gt=0)


class MeasureSettings(Settings):
    """How engines are timed."""

    batches: tuple[int, ...] = Field((), description="batch sizes; those of the batch axis if not given")
    seconds: float = Field(0.5, gt=0, le=60, description="per batch size and engine")
    threads: int = Field(0, ge=0, description="0: one a core")
