"""`trtcompress quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from . import options
from .main import say

if TYPE_CHECKING:
    from trtcompress_graph.encoding import Encoding
    from trtcompress_graph.model import Model
    from trtcompress_graph.ranges import Ranges


@click.command(name="quantize")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@click.option(
    "--ranges",
    "ranges_file",
    metavar="ranges.json",
    type=options.FILE,
    help="Written by trtcompress calibrate. Needed for INT8 and for FP16; not where FP32 stays FP32.",
)
@options.target
@click.option("--precision", type=click.Choice(["int8", "float"]), default="int8", show_default=True)
@click.option("--skip", metavar="GLOB", multiple=True, help="Nodes that stay in the float type; repeat it.")
@options.output("ONNX file to write.")
@options.as_json
def command(
    model: str,
    ranges_file: str | None,
    target_name: str,
    precision: Literal["int8", "float"],
    skip: tuple[str, ...],
    output: str,
    as_json: bool,
) -> None:
    """Write INT8 (as Q/DQ pairs) or FP16 into the graph, in the encoding of the target."""
    from trtcompress_calibration.doubts import nothing_quantized
    from trtcompress_calibration.placement import quantize
    from trtcompress_calibration.precision import plan_precision
    from trtcompress_graph.load import read_model

    from ..plan import encoding_of

    encoding = encoding_of(target_name, precision)
    read = read_model(Path(model))
    ranges = _ranges(read, ranges_file, encoding)
    plan = plan_precision(read, ranges, encoding, skip=skip)
    written = quantize(read, ranges, plan, encoding, Path(output))
    counts = ", ".join(
        f"{sum(n.precision == kind for n in plan.nodes)} in {kind}" for kind in ("int8", "float16", "float32")
    )
    say(f"{encoding.name}: nodes {counts}")
    if note := nothing_quantized(plan, encoding):
        say(note)
    options.written(written, as_json)


def _ranges(model: Model, file: str | None, encoding: Encoding) -> Ranges:
    """The ranges of this very model; none at all where the encoding asks for none."""
    from trtcompress_graph.errors import DataError, UsageError
    from trtcompress_graph.ranges import VERSION, Ranges, read_ranges

    hint = f"trtcompress calibrate {model.path} --data ... -o {file or 'ranges.json'}"
    if file is not None:
        ranges = read_ranges(Path(file))
        if ranges.model_sha256 != model.digest:
            raise DataError("these ranges were measured on another model", where=file, hint=hint)
        return ranges
    if encoding.int8 or encoding.float_type == "float16":
        why = "INT8 is scaled by them" if encoding.int8 else "they tell which values would overflow in FP16"
        raise UsageError(f"{encoding.name} needs ranges: {why}", where="--ranges", hint=f"{hint}; then --ranges ...")
    return Ranges(VERSION, model.digest, "none", 0, {})
