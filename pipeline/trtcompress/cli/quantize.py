"""`trtcompress quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from . import options
from .main import say


@click.command(name="quantize")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@click.option(
    "--ranges",
    "ranges_file",
    metavar="ranges.json",
    type=options.FILE,
    required=True,
    help="Written by trtcompress calibrate.",
)
@options.target
@click.option("--precision", type=click.Choice(["int8", "float"]), default="int8", show_default=True)
@click.option("--skip", metavar="GLOB", multiple=True, help="Nodes that stay in the float type; repeat it.")
@options.output("ONNX file to write.")
@options.as_json
def command(
    model: str,
    ranges_file: str,
    target_name: str,
    precision: Literal["int8", "float"],
    skip: tuple[str, ...],
    output: str,
    as_json: bool,
) -> None:
    """Write INT8 (as Q/DQ pairs) or FP16 into the graph, in the encoding of the target."""
    from trtcompress_calibration.placement import quantize
    from trtcompress_calibration.precision import plan_precision
    from trtcompress_graph.errors import DataError
    from trtcompress_graph.load import read_model
    from trtcompress_graph.ranges import read_ranges

    from ..plan import encoding_of

    encoding = encoding_of(target_name, precision)
    read, ranges = read_model(Path(model)), read_ranges(Path(ranges_file))
    if ranges.model_sha256 != read.digest:
        raise DataError(
            "these ranges were measured on another model",
            where=ranges_file,
            hint=f"trtcompress calibrate {model} --data ... -o {ranges_file}",
        )
    plan = plan_precision(read, ranges, encoding, skip=skip)
    written = quantize(read, ranges, plan, encoding, Path(output))
    counts = ", ".join(
        f"{sum(n.precision == kind for n in plan.nodes)} in {kind}" for kind in ("int8", "float16", "float32")
    )
    say(f"{encoding.name}: nodes {counts}")
    options.written(written, as_json)
