"""`trtcompress simplify`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command(name="simplify")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@options.output("ONNX file to write.")
@options.as_json
def command(model: str, output: str, as_json: bool) -> None:
    """Fold constants and BatchNorm, remove what is not used, upgrade the opset; names are kept."""
    from trtcompress_graph.load import read_model
    from trtcompress_graph.simplify import simplify

    options.written(simplify(read_model(Path(model)), Path(output)), as_json)
