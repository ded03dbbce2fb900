"""`trtcompress calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .counting import counting
from .main import say

if TYPE_CHECKING:
    from ..trials import Trial


@click.command(name="calibrate")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@options.data
@options.state
@click.option(
    "--method",
    type=click.Choice(["entropy", "minmax", "percentile", "mse", "mse-u8", "auto"]),
    default="mse",
    show_default=True,
    help="How a threshold is chosen from a histogram; auto measures which one costs the outputs least.",
)
@options.target
@options.samples
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Changes the speed only.")
@options.output("ranges.json to write.")
@options.as_json
def command(
    model: str,
    data: str,
    method: str,
    target_name: str,
    samples: int | None,
    batch: int,
    output: str,
    as_json: bool,
) -> None:
    """Run samples through the float model and write the range of every activation.

    Simplify the model first if it was not: ranges are found by tensor name. Ranges serve all targets; --target is the
    one that --method auto measures for.
    """
    from trtcompress_calibration.collect import calibrate, preload
    from trtcompress_calibration.doubts import doubts, refuse_constant
    from trtcompress_graph.load import read_model

    from ..asked import encoding_of
    from ..datasets import open_data
    from ..files import write_text
    from ..outputs import RangesFile
    from ..trying import best_ranges
    from .output import print_json

    encoding = encoding_of(target_name, "int8")
    preload()
    read = read_model(Path(model))
    dataset = open_data(options.data_ref(data, samples), read)
    trials: tuple[Trial, ...] = ()
    with counting("samples") as progress:

        def told(done: int) -> None:
            progress(done, dataset.total)

        if method == "auto":
            ranges, trials = best_ranges(read, dataset, encoding=encoding, batch=batch, progress=told)
        else:
            ranges = calibrate(read, dataset, method=method, batch_size=batch, progress=told)
    for trial in trials:
        say(f"{trial.what}: error {trial.error:.4g} of the outputs' variance")
    if method == "auto":
        say(f"method: {ranges.method}")
    refuse_constant(ranges, read.inputs, dataset.source)
    write_text(Path(output), ranges.text())
    for note in (*dataset.notes, *doubts(ranges, read.inputs)):
        say(note)
    if as_json:
        print_json(
            RangesFile(
                path=output,
                model_sha256=ranges.model_sha256,
                method=ranges.method,
                samples=ranges.samples,
                tensors=len(ranges.tensors),
            )
        )
    else:
        say(f"wrote {output}: {len(ranges.tensors)} tensors over {ranges.samples} samples")
