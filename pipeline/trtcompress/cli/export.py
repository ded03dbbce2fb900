"""`trtcompress export`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .main import say

if TYPE_CHECKING:
    from trtcompress_graph.model import TensorSpec


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
    if not axis_options and not source.endswith(".onnx"):
        for line in _fixed(model.inputs):
            say(line)


def _fixed(inputs: tuple[TensorSpec, ...]) -> Iterator[str]:
    """What to type where every length is fixed, which few want: a batch is."""
    batched = [spec for spec in inputs if len(spec.shape) > 1]
    if not batched or any(isinstance(length, str) for spec in inputs for length in spec.shape):
        return
    sizes = "; ".join(f"{spec.name} {' x '.join(map(str, spec.shape))}" for spec in inputs)
    alike = [spec.name for spec in batched if spec.shape[0] == batched[0].shape[0]]
    yield f"every axis is fixed: it takes {sizes} and nothing else"
    yield "for batches of 1 to 16, export it again with " + " ".join(f"--axis {name}.batch=1,8,16" for name in alike)
