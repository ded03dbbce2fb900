"""`trtcompress simplify`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .main import say


@click.command(name="simplify")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@click.option(
    "--fix",
    metavar="INPUT=VALUE",
    multiple=True,
    help="The value of an input that is always the same, such as sr=16000; it is no input then. Repeat it.",
)
@options.onnx_output
@options.as_json
def command(model: str, fix: tuple[str, ...], output: str, as_json: bool) -> None:
    """Fold constants and BatchNorm, remove what is not used, upgrade the opset; names are kept.

    Branches (If) are folded where their condition is known; --fix makes it known where it depends on an input.
    """
    from trtcompress_graph.branches import open_branches
    from trtcompress_graph.fixing import read_all_fixed
    from trtcompress_graph.load import load_ir, read_model
    from trtcompress_graph.simplify import simplify

    simplified = simplify(read_model(Path(model)), Path(output), fix=read_all_fixed(fix))
    for told in open_branches(load_ir(simplified)):
        say(told)
    options.written(simplified, as_json)
