"""`trtcompress sparsify`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .main import say


@click.command(name="sparsify")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@options.some_data(
    "Samples, without labels: the weights that are left make good what the others gave. Without it the greatest "
    "weights stay as they are.",
)
@options.state
@options.samples
@options.skip("Nodes that stay dense")
@options.onnx_output
@options.as_json
def command(
    model: str, data: str | None, samples: int | None, skip: tuple[str, ...], output: str, as_json: bool
) -> None:
    """Set two of every four weights to zero, for the sparse kernels of TensorRT from SM80 on.

    The graph and the shapes of its weights stay: only such kernels gain by it. Calibrate and quantize what comes out.
    """
    from trtcompress_calibration.formats.sparse import SAMPLES, sparsify, words
    from trtcompress_graph.load import read_model

    from ..datasets import open_data

    read = read_model(Path(model))
    opened = None if data is None else open_data(options.data_ref(data, samples or SAMPLES), read)
    made, layers = sparsify(read, Path(output), samples=opened, skip=skip)
    for layer in layers:
        if layer.why_not:
            say(f"{layer.node}: dense: {layer.why_not}")
        elif layer.error is not None and layer.magnitude is not None:
            say(
                f"{layer.node}: 2:4, error {layer.error:.3g} of its variance ({layer.magnitude:.3g} by magnitude alone)"
            )
        else:
            say(f"{layer.node}: 2:4")
    say(words(layers))
    options.written(made, as_json)
