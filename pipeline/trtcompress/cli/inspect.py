"""`trtcompress inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .main import say

if TYPE_CHECKING:
    from ..outputs import Prunable


@click.command(name="inspect")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@options.axis
@click.option("--top", type=click.IntRange(min=0), default=10, show_default=True, help="How many heavy nodes.")
@click.option("--groups", is_flag=True, help="What can be pruned: what is cut together, and what stays whole and why.")
@options.as_json
def command(model: str, axis_options: tuple[str, ...], top: int, groups: bool, as_json: bool) -> None:
    """Show inputs, outputs, cost by operator kind, the heaviest nodes, and what can be quantized.

    Costs are for one sample, or for the usual lengths of --axis.
    """
    from ..inspection import assumed, inspect_model
    from .output import print_json, print_table

    axes = options.axes(axis_options)
    found = inspect_model(Path(model), axes, top, groups=groups)
    if as_json:
        print_json(found)
        return
    click.echo(f"{found.path}  opset {found.opset}")
    print_table(
        ("tensor", "type", "shape"),
        [
            (f"{kind} {t.name}", t.dtype, " x ".join(map(str, t.shape)) or "scalar")
            for kind, tensors in (("input", found.inputs), ("output", found.outputs))
            for t in tensors
        ],
    )
    sizes = ", ".join(f"{name} {' x '.join(map(str, shape)) or 'scalar'}" for name, shape in found.shapes.items())
    click.echo(
        f"{found.macs / 1e6:.2f} M MACs, {found.parameters / 1e6:.3f} M parameters, {found.bytes / 1e6:.2f} MB "
        f"for {sizes}"
    )
    for note in assumed(found, axes):
        say(note)
    print_table(
        ("operator", "nodes", "M MACs", "parameters", "bytes"),
        [(o.op, str(o.count), f"{o.macs / 1e6:.2f}", str(o.parameters), str(o.bytes)) for o in found.operators],
    )
    if found.heaviest:
        print_table(
            ("heaviest node", "operator", "M MACs", "parameters"),
            [(n.node, n.op, f"{n.macs / 1e6:.2f}", str(n.parameters)) for n in found.heaviest],
        )
    if found.quantized_already:
        say(f"already quantized: {len(found.quantized_already)} nodes, first '{found.quantized_already[0]}'")
    else:
        click.echo(
            f"can be quantized: {found.quantizable_nodes} nodes, {100 * found.quantizable_macs:.1f} % of the MACs"
        )
    if found.prunable is not None:
        _show_groups(found.prunable, quantized=bool(found.quantized_already))


def _show_groups(found: Prunable, *, quantized: bool) -> None:
    """What is cut together and what a unit of it costs; what stays whole, by reason."""
    from .output import few, print_table

    print_table(
        ("group", "kind", "units", "k MACs a unit", "parameters a unit", "cut together"),
        [
            (
                *(g.group, g.kind, str(g.units) if g.parts == g.units else f"{g.units} in {g.parts} parts"),
                *(f"{g.macs / 1e3:.2f}", f"{g.parameters:.1f}", few(g.weights)),
            )
            for g in found.groups
        ],
    )
    print_table(("left whole", "because"), [(few(left.weights), left.why) for left in found.left])
    if not found.groups:
        say("nothing can be pruned" + ("; prune the float model, then quantize it" if quantized else ""))
