"""`trtcompress quantize`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from . import options
from .main import say

if TYPE_CHECKING:
    from trtcompress_graph.encoding import Encoding, PrecisionPlan
    from trtcompress_graph.model import Model

    from ..config import Rounding, WeightMethod
    from ..stage import DataRef
    from .quantized import Quantized

TENSORRT = "8.6.1"
"""Release that a cache is written for where none is named."""


@click.command(name="quantize")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@options.ranges(
    "Written by trtcompress calibrate, or TensorRT's calibration.cache. Needed for INT8, FP8 and FP16; not where "
    "FP32 stays FP32, for BF16, nor where weights or tables alone are quantized.",
)
@options.target
@click.option(
    "--precision",
    type=click.Choice(["int8", "float", "bf16", "fp8", "weight-int8", "weight-int4", "tables"]),
    help="Short: --target T:PRECISION, where w8, w4 and int4 do as well. weight-int8 and weight-int4 quantize weights "
    "and embedding tables alone, tables these tables alone.  [default: int8; float where a target has no INT8]",
)
@click.option(
    "--block",
    type=click.Choice(["16", "32", "64", "128", "256"]),
    help="Weights that share a scale, for weight-int8 and weight-int4. [default: cpu 128 and 32; TensorRT a whole "
    "channel and 64]",
)
@click.option(
    "--symmetric/--asymmetric",
    default=None,
    help="Integer weights without or with zero points. [default: with them on a cpu; TensorRT takes none]",
)
@click.option(
    "--accuracy-level",
    type=click.Choice(["1", "4"]),
    help="Of integer weights on a cpu: 1 computes in float; 4 rounds what is read to INT8, faster. [default: 1]",
)
@options.skip("Nodes that stay in the float type")
@click.option(
    "--max-drop",
    metavar="X",
    type=click.FloatRange(min=0),
    help="Keep in float as few nodes as it takes for a metric to drop by X at the most, on --data; without a metric X "
    "is the squared error of each output as a share of its power.",
)
@click.option(
    "--weights",
    type=click.Choice(["auto", "minmax", "mse"]),
    default="minmax",
    show_default=True,
    help="How far a channel of an INT8 weight reaches; auto measures on --data.",
)
@click.option(
    "--rounding",
    type=click.Choice(["auto", "nearest", "second-order"]),
    default="nearest",
    show_default=True,
    help="How weights become integers; second-order and auto read --data.",
)
@click.option(
    "--correct-bias",
    type=click.Choice(["auto", "true", "false"]),
    default="false",
    show_default=True,
    help="Take off the biases what rounding adds to the means of outputs, on --data.",
)
@options.some_data("Samples for --max-drop, with labels where a metric is, --weights, --rounding and --correct-bias.")
@options.samples
@options.state
@options.metrics(f"For --max-drop: {options.METRICS}.")
@click.option(
    "--cache",
    metavar="calibration.cache",
    type=options.FILE,
    help="Also write the scales as TensorRT 8 to 10 reads them, for the float model, INT8 flags and DLA.",
)
@click.option(
    "--tensorrt",
    metavar="VERSION",
    help="For --cache: the release on the machine that builds; another one ignores the file.  [default: 8.6.1]",
)
@options.onnx_output
@options.as_json
def command(
    model: str,
    ranges_file: str | None,
    target_name: str,
    precision: str | None,
    block: str | None,
    symmetric: bool | None,
    accuracy_level: str | None,
    skip: tuple[str, ...],
    max_drop: float | None,
    weights: WeightMethod,
    rounding: Rounding,
    correct_bias: Literal["auto", "true", "false"],
    data: str | None,
    samples: int | None,
    metrics: tuple[str, ...],
    cache: str | None,
    tensorrt: str | None,
    output: str,
    as_json: bool,
) -> int:
    """Write INT8 or FP8 (as Q/DQ pairs), integer weights, FP16 or BF16 into the graph, as the target takes it."""
    from trtcompress_calibration.trt_cache import check_cache
    from trtcompress_engines.encodings import with_weights
    from trtcompress_graph.load import read_model

    from ..asked import asked_encoding
    from .quantized import Choices, quantized, ranges_for

    choices = Choices(skip, max_drop, metrics, weights, rounding, correct_bias)
    choices.check_data(data is not None)
    options.refuse_idle("--max-drop", max_drop is not None, {"--metric": metrics})
    options.refuse_idle("--data", data is not None, {"--samples": samples, "--state": options.given_states()})
    options.refuse_idle("--cache", cache is not None, {"--tensorrt": tensorrt})
    encoding = with_weights(
        asked_encoding(target_name, precision),
        block=None if block is None else int(block),
        symmetric=symmetric,
        accuracy_level=None if accuracy_level is None else int(accuracy_level),
    )
    choices.check(encoding)
    source = read_model(Path(model))
    ranges = ranges_for(source, ranges_file, encoding)
    release = tensorrt or TENSORRT
    if cache is not None:
        check_cache(ranges, encoding, release)
    ref = options.data_ref(data, samples) if data is not None else None
    made = quantized(source, ranges, encoding, choices, ref, Path(output))
    if encoding.name == "trt-fp16" and precision is None and ":" not in target_name:
        say(f"INT8 engines are not built for '{target_name}': {encoding.name} is written")
    notes = _told(made, target_name, ref if max_drop is not None else None)
    if cache is not None:
        _write_cache(made, cache, release)
    failed = [f"FAILED --max-drop {max_drop:g}: {doubt}" for doubt in made.doubts]
    _print(made, (*notes, *failed), as_json)
    for told in failed:
        say(told)
    return 1 if failed else 0


def _told(made: Quantized, target_name: str, speed_on: DataRef | None) -> list[str]:
    """Say what was made; what is to be noted of it comes back."""
    from .quantized import notes_of

    say(f"{made.encoding.name}: nodes {_counts(made.plan, made.encoding)}")
    say(f"size: {_megabytes(made.source)} -> {_megabytes(made.written)}")
    notes = notes_of(made, target_name, speed_on)
    for note in notes:
        say(note)
    return notes


def _write_cache(made: Quantized, cache: str, release: str) -> None:
    from trtcompress_calibration.trt_cache import cache_text

    from ..files import write_text

    write_text(Path(cache), cache_text(made.source, made.ranges, made.plan, made.encoding, release))
    say(f"wrote {cache}, for TensorRT {release}")


def _print(made: Quantized, notes: tuple[str, ...], as_json: bool) -> None:
    from ..outputs import quantize_result
    from .output import print_json

    if as_json:
        print_json(quantize_result(made.written, made.plan, notes))
    else:
        options.written(made.written, as_json)


def _counts(plan: PrecisionPlan, encoding: Encoding) -> str:
    """How many nodes run in each precision; what could be quantized and was not is told as 0."""
    from trtcompress_graph.encoding import Precision

    found = Counter(node.precision for node in plan.nodes)
    found.setdefault(encoding.quantized if encoding.activation or encoding.integers else encoding.float_type, 0)
    order = get_args(Precision)
    return ", ".join(f"{found[kind]} in {kind}" for kind in sorted(found, key=order.index))


def _megabytes(model: Model) -> str:
    """Size of a model with its external data."""
    from ..outputs import model_size

    return f"{model_size(model) / 1e6:.2f} MB"
