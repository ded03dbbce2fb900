"""`trtcompress inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .main import say


@click.command(name="inspect")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@options.axis
@click.option("--top", type=click.IntRange(min=0), default=10, show_default=True, help="How many heavy nodes.")
@options.as_json
def command(model: str, axis_options: tuple[str, ...], top: int, as_json: bool) -> None:
    """Show inputs, outputs, cost by operator kind, the heaviest nodes, and what can be quantized.

    Costs are for one sample, or for the usual lengths of --axis.
    """
    from ..inspection import assumed_axes, inspect_model
    from .output import print_json, print_table

    axes = options.axes(axis_options)
    found = inspect_model(Path(model), axes, top)
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
    if assumed := assumed_axes(found, axes):
        more = " ".join(f"--axis {name}=224" for name in assumed)
        say(f"{', '.join(assumed)}: of unknown length, counted as 1; give the usual length, such as {more}")
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
