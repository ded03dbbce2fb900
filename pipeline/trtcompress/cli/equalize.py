"""`trtcompress equalize`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .main import say

if TYPE_CHECKING:
    from ..config import Equalization, Method


@click.command(name="equalize")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@options.data
@options.state
@click.option(
    "--how",
    type=click.Choice(["auto", "cross-layer", "smooth"]),
    default="auto",
    show_default=True,
    help="What is made equal: the weights of two layers; activations and the weights that read them. auto measures.",
)
@click.option(
    "--method",
    type=click.Choice(["entropy", "minmax", "percentile", "mse", "mse-u8"]),
    default="mse",
    show_default=True,
    help="Of the ranges, where auto measures.",
)
@options.target
@options.samples
@options.onnx_output
@options.as_json
def command(
    model: str,
    data: str,
    how: Equalization,
    method: Method,
    target_name: str,
    samples: int | None,
    output: str,
    as_json: bool,
) -> None:
    """Make the channels of each tensor equally wide, before calibration; the float model computes the same.

    Simplify the model first if it was not, and calibrate what comes out.
    """
    from trtcompress_graph.errors import UsageError
    from trtcompress_graph.load import read_model

    from ..asked import encoding_of
    from ..datasets import open_data
    from ..stages.calibrate import SAMPLES
    from ..trying import equalized_model

    encoding = encoding_of(target_name, "int8")
    if not encoding.int8:
        raise UsageError(f"INT8 engines are not built for '{target_name}'", where="--target")
    read = read_model(Path(model))
    made = equalized_model(
        read,
        open_data(options.data_ref(data, samples or SAMPLES), read),
        Path(output),
        how=how,
        method=method,
        skip=(),
        encoding=encoding,
    )
    for trial in made.trials:
        error = f"{trial.error:.4g}" if math.isfinite(trial.error) else "not finite"
        say(f"{trial.what}: error {error} of the outputs' variance in {encoding.name}")
    nothing = made.chosen == "off" and not made.trials
    say("nothing could be equalized; the weights are as they were" if nothing else f"equalized: {made.chosen}")
    options.written(made, as_json)
