"""`trtcompress export`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .main import say


@click.command(name="export")
@click.argument("source", metavar="PACKAGE.MODULE:FUNCTION")
@options.onnx_output
@options.some_data("Real samples to compare the graph with PyTorch on.")
@options.axis
@click.option("--trust-pickle", is_flag=True, help="Load a pickled module: it can run any code.")
@options.as_json
def command(
    source: str, output: str, data: str | None, axis_options: tuple[str, ...], trust_pickle: bool, as_json: bool
) -> None:
    """Export a PyTorch network, and compare the graph with it.

    The function returns (module, example inputs) or (module, example inputs, dynamic axes).

    \b
    trtcompress export nets.mnist:model -o mnist.onnx --axis x.batch=1,8,16
    """
    from ..exporting import export_model
    from ..stages.export import real_samples

    model = export_model(
        source,
        base=Path.cwd(),
        axes=options.axes(axis_options),
        samples=real_samples(options.data_ref(data, None), source, Path(output)) if data else (),
        trust_pickle=trust_pickle,
        out=Path(output),
        tell=say,
    )
    options.written(model, as_json)
