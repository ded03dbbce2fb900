"""`trtcompress validate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .counting import counting
from .main import say

if TYPE_CHECKING:
    from ..outputs import ValidationResult

POSITIVE = click.FloatRange(0, min_open=True)


@click.command(name="validate")
@click.argument("subject", metavar="DIR_OR_MODEL", type=options.ANY)
@click.option(
    "--reference", metavar="M.onnx", type=options.FILE, required=True, help="The float model to compare with."
)
@options.data
@options.state
@options.samples
@options.metrics(f"{options.METRICS}.")
@click.option("--max-metric-drop", type=float, help="Gate. [default: 0.01 with a metric]")
@click.option("--min-cosine", type=click.FloatRange(-1, 1), help="Gate for each output. [default: 0.99]")
@click.option(
    "--min-snr-db",
    metavar="DB",
    type=float,
    help="Gate for each output: signal-to-noise ratio, which sees a wrong size. [default: 10]",
)
@click.option("--min-speedup", type=POSITIVE, help="Gate.")
@click.option("--max-latency-ms", type=POSITIVE, help="Gate.")
@click.option("--max-size-mb", type=POSITIVE, help="Gate.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, 60, min_open=True),
    default=1.0,
    show_default=True,
    help="Of timing per batch size.",
)
@click.option("--strict", is_flag=True, help="Exit 1 also where something could not be measured.")
@options.axis
@options.as_json
def command(
    subject: str,
    reference: str,
    data: str,
    samples: int | None,
    metrics: tuple[str, ...],
    max_metric_drop: float | None,
    min_cosine: float | None,
    min_snr_db: float | None,
    min_speedup: float | None,
    max_latency_ms: float | None,
    max_size_mb: float | None,
    seconds: float,
    strict: bool,
    axis_options: tuple[str, ...],
    as_json: bool,
) -> int:
    """Compare an engine folder (see compile), a build folder or an ONNX file with its reference."""
    from ..config import GateSettings, MeasureSettings
    from ..revalidate import revalidate
    from .output import print_json

    gates = GateSettings(
        max_metric_drop=max_metric_drop,
        min_cosine=min_cosine,
        min_snr_db=min_snr_db,
        min_speedup=min_speedup,
        max_latency_ms=max_latency_ms,
        max_size_mb=max_size_mb,
    )
    with counting("samples") as progress:
        found = revalidate(
            Path(subject),
            Path(reference),
            options.data_ref(data, samples),
            metrics,
            gates,
            MeasureSettings(seconds=seconds),
            options.axes(axis_options),
            progress,
        )
    if as_json:
        print_json(found)
    else:
        _show(found)
    for note in found.notes:
        say(note)
    return 1 if found.verdict == "fail" or (strict and found.verdict == "not_measured") else 0


def _show(found: ValidationResult) -> None:
    """Tables for people."""
    from ..report import gpu
    from ..report.table import signal_to_noise
    from .output import print_table

    print_table(
        ("output", "max abs", "max rel", "least cosine", "SNR dB", "size"),
        [
            (
                o.output,
                f"{o.max_abs:.3g}",
                f"{o.max_rel:.3g}",
                f"{o.cosine:.6f}",
                signal_to_noise(o.snr_db),
                "-" if o.scale is None else f"{o.scale:.4g}x",
            )
            for o in found.outputs
        ],
    )
    if found.metrics:
        print_table(
            ("metric", "reference", "value", "95 % interval"),
            [
                (name, f"{m.reference:.4g}", f"{m.value:.4g}", f"{m.ci[0]:.4g} to {m.ci[1]:.4g}")
                for name, m in found.metrics.items()
            ],
        )
    if found.speeds:
        print_table(
            ("batch", "p50 ms", "p90 ms", "p99 ms", "samples/s", "reference p50 ms", "speedup"),
            [
                (
                    str(s.batch),
                    f"{s.p50:.3g}",
                    f"{s.p90:.3g}",
                    f"{s.p99:.3g}",
                    f"{s.throughput:.4g}",
                    f"{s.reference_p50:.3g}",
                    f"{s.speedup:.2f}",
                )
                for s in found.speeds
            ],
        )
    print_table(gpu.COLUMNS, gpu.rows([(s.batch, asdict(s.gpu) if s.gpu else None) for s in found.speeds]))
    print_table(
        ("gate", "limit", "value", "verdict"),
        [
            (g.gate, f"{g.limit:.4g}", "-" if g.value is None else f"{g.value:.4g}", g.verdict.replace("_", " "))
            for g in found.gates
        ],
    )
