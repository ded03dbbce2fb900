"""`trtcompress prune`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .counting import SECONDS_EVERY
from .main import say

if TYPE_CHECKING:
    from ..config import PruneSettings
    from ..outputs import PruneResult

SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
IMPORTANCES = click.Choice(["l1", "l2", "energy", "activation", "obs", "taylor", "fisher", "random"])
ALLOCATIONS = click.Choice(["uniform", "global", "damage"])


@click.command(name="prune")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@click.option("--macs", type=SHARE, help="Keep this share of the multiply-accumulates.")
@click.option("--params", type=SHARE, help="Keep this share of the parameters.")
@click.option("--speedup", type=click.FloatRange(1, min_open=True), help="Times as fast, measured in ONNX Runtime.")
@options.some_data("Samples without labels: .npz, folder of .npz or images, package.module:function.")
@options.some_samples("Read no more than this many.  [default: 512]")
@click.option("--importance", type=IMPORTANCES, help="How units are scored.  [default: obs with --data, else l2]")
@click.option(
    "--allocation", type=ALLOCATIONS, help="How the cut is shared out.  [default: damage with --data, else uniform]"
)
@click.option(
    "--reconstruct/--no-reconstruct",
    default=None,
    help="Solve the weights behind a cut anew.  [default: with --data]",
)
@click.option("--multiple", type=click.IntRange(min=1), help="Widths fall on multiples of it.  [default: 8]")
@click.option("--keep", metavar="GLOB", multiple=True, help="Weights, tensors, nodes or groups that stay; repeat it.")
@click.option("--depth", type=click.FloatRange(0, 1, min_open=True), help="Keep this share of the residual blocks.")
@click.option(
    "--plan", metavar="plan.json", type=options.FILE, help="Written; without a budget, read and applied again."
)
@options.state
@options.axis
@options.output("ONNX file to write.", options.ONNX, guarded=False)
@options.as_json
def command(
    model: str,
    data: str | None,
    samples: int | None,
    plan: str | None,
    axis_options: tuple[str, ...],
    output: str,
    as_json: bool,
    **how: Any,
) -> None:
    """Cut channels, heads, feed-forward widths and residual blocks, so that the model gets smaller and faster.

    The model is simplified first. Inputs, outputs and the names of weights stay.

    \b
    trtcompress prune m.onnx --macs 0.7 --data samples.npz -o small.onnx
    trtcompress prune m.onnx --params 0.5 --keep 'head.*' --plan plan.json -o small.onnx
    trtcompress prune m.onnx --plan plan.json --data samples.npz -o same.onnx

    Costs are counted at the usual lengths of --axis, else at the first sample's. See: trtcompress inspect --groups.
    """
    from ..cut_file import cut_file
    from .output import print_json

    settings = _settings(how, plan, samples)
    found = cut_file(
        Path(model),
        Path(output),
        settings,
        Path(plan) if plan and settings.plan is None else None,
        data=options.data_ref(data, samples) if data else None,
        axes=options.axes(axis_options),
        told=_lines(),
    )
    if as_json:
        print_json(found)
    else:
        _show(found)
    for note in found.notes:
        say(note)
    if not as_json:
        say(f"wrote {found.path} (SHA-256 {found.sha256[:16]})")
        if plan and settings.plan is None:
            say(f"wrote {plan}")


def _settings(how: dict[str, Any], plan: str | None, samples: int | None) -> PruneSettings:
    """The options as the section `prune` of a config, whose rules hold here too.

    Raises:
        UsageError: they do not fit together.
    """
    from pydantic import ValidationError

    from trtcompress_graph.errors import UsageError

    from ..config import PruneSettings

    given = {name: value for name, value in {**how, "samples": samples}.items() if value not in (None, ())}
    if plan is not None and not given.keys() & {"macs", "params", "speedup"}:
        given["plan"] = plan
    try:
        return PruneSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = f"--{first['loc'][0]}" if first["loc"] else ""
        hint = "--macs 0.7 keeps 70 % of the multiply-accumulates; --plan alone applies a plan again"
        raise UsageError(first["msg"].removeprefix("Value error, "), where=where, hint=hint) from None


def _lines() -> Callable[[str, int, int | None], None]:
    """A line for each thing that begins, and for one that takes long."""
    shown, due = "", 0.0

    def told(what: str, done: int, total: int | None) -> None:
        nonlocal shown, due
        now = time.monotonic()
        if what == shown and now < due:
            return
        say(what if what != shown else f"{what}: {done}{f'/{total}' if total else ''}")
        shown, due = what, now + SECONDS_EVERY

    return told


def _show(found: PruneResult) -> None:
    """Costs, and what was cut."""
    from ..report.table import size
    from .output import few, print_table

    before, after = found.before, found.after
    print_table(
        ("cost", "before", "after", "left"),
        [
            ("MACs", f"{before.macs / 1e6:.2f} M", f"{after.macs / 1e6:.2f} M", _share(before.macs, after.macs)),
            (
                *("parameters", f"{before.parameters / 1e6:.3f} M", f"{after.parameters / 1e6:.3f} M"),
                _share(before.parameters, after.parameters),
            ),
            ("file", size(before.bytes), size(after.bytes), _share(before.bytes, after.bytes)),
        ],
    )
    if found.speedup is not None:
        click.echo(f"{found.speedup:.2f} times as fast in ONNX Runtime when the plan was made")
    print_table(
        ("cut", "kind", "units", "kept", "damage", "weights"),
        [
            (g.group, g.kind, str(g.units), str(g.kept), "-" if g.damage is None else f"{g.damage:.3g}", few(g.weights))
            for g in found.groups
        ],
    )
    print_table(
        ("block that goes whole", "nodes", "damage"),
        [(b.block, str(len(b.nodes)), "-" if b.damage is None else f"{b.damage:.3g}") for b in found.blocks],
    )


def _share(before: int, after: int) -> str:
    return f"{100 * after / before:.1f} %" if before else "-"
