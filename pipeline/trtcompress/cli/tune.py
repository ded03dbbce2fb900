"""`trtcompress tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .main import say
from .serving_options import model_names, packages, server

if TYPE_CHECKING:
    from ..outputs import ServingSetting, TunedModel

POSITIVE = click.FloatRange(0, min_open=True)


@click.command(name="tune")
@click.argument("repository", metavar="REPO", type=options.FOLDER)
@model_names
@click.option(
    "--latency-ms",
    type=POSITIVE,
    metavar="L",
    help="Limit of p99. [default: twice that of one request alone, as the model is served now]",
)
@click.option(
    "--clients",
    type=click.IntRange(1),
    metavar="N",
    help="Requests that are always under way: tune for so many. [default: for as many as bring most]",
)
@click.option("--seconds", type=POSITIVE, default=1.0, show_default=True, metavar="S", help="Length of a window.")
@click.option(
    "--minutes",
    type=POSITIVE,
    default=10.0,
    show_default=True,
    metavar="M",
    help="To search, per model; eight turns of the winner and what was there come on top.",
)
@click.option("--samples", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="In a request.")
@server
@packages
@options.axis
@options.as_json
def command(
    repository: str,
    names: tuple[str, ...],
    latency_ms: float | None,
    clients: int | None,
    seconds: float,
    minutes: float,
    samples: int,
    server: str | None,
    packages: str | None,
    axis_options: tuple[str, ...],
    as_json: bool,
) -> int:
    """Measure how a model is served best, and write it into its config.pbtxt.

    \b
    trtcompress tune repository --model mnist --latency-ms 5

    A real server is run on a copy. Instances, threads, batch sizes and the delay of the batcher are searched for the
    most requests a second within the limit, with more and more clients or with --clients. The winner and what was
    there are measured in turns at the end: what is not faster is not written. tuning.json holds the curves,
    config.pbtxt.before what was there before the first time.
    """
    from ..tuning import tune
    from .output import print_json, print_table

    done = tune(
        Path(repository),
        server=Path(server) if server else None,
        packages=Path(packages) if packages else None,
        models=names,
        axes=options.axes(axis_options),
        latency_ms=latency_ms,
        clients=clients,
        seconds=seconds,
        minutes=minutes,
        samples=samples,
        tell=say,
    )
    if as_json:
        print_json(done)
    else:
        columns = ("model", "setting", "instances", "threads", "batches", "delay us", "clients", "requests/s", "p99 ms")
        print_table(columns, [row for model in done.models for row in _rows(model)])
        for model in done.models:
            say(f"{model.model}: {'replaced' if model.replaced else 'kept'}: {model.why}")
    for model in done.models:
        if not model.complete:
            say(f"{model.model}: time was up after {len(model.tried)} settings; --minutes gives more")
    for note in done.notes:
        say(note)
    return 0


def _rows(model: TunedModel) -> list[tuple[str, ...]]:
    """What was there, and what was compared with it."""
    turns = model.in_turns
    shown = [("before", model.former)]
    if turns:
        shown.append(("after" if model.replaced else "other", model.winner))
    rows = []
    for name, setting in shown:
        points = [p for tried in model.tried if tried.setting == setting for p in tried.points]
        within = [p for p in points if p.p99 <= model.limit_ms] or points[:1]
        best = max(within, key=lambda point: point.throughput)
        point = best if turns is None else turns.former if name == "before" else turns.winner
        measured = (str(point.clients), f"{point.throughput:.4g}", f"{point.p99:.3g}")
        rows.append((model.model, name, *_cells(setting), *measured))
    return rows


def _cells(setting: ServingSetting) -> tuple[str, ...]:
    threads = "-" if setting.threads is None else str(setting.threads or "all")
    if setting.batches is None:
        return str(setting.instances), threads, "off", "-"
    return str(setting.instances), threads, "/".join(map(str, setting.batches)) or "any", str(setting.delay_us)
