"""`trtcompress quantize`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from . import on_samples, options
from .main import say

if TYPE_CHECKING:
    from trtcompress_graph.encoding import Encoding, PrecisionPlan
    from trtcompress_graph.model import Model
    from trtcompress_graph.ranges import Ranges

    from ..config import Rounding, WeightMethod


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
@options.metrics("For --max-drop: top1, top5, f1, spearman, module:function.")
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
    from trtcompress_calibration.placement import quantize
    from trtcompress_calibration.precision import plan_precision
    from trtcompress_calibration.trt_cache import cache_text, check_cache
    from trtcompress_engines.encodings import with_weights
    from trtcompress_engines.targets import resolve_target
    from trtcompress_graph.load import read_model

    from ..asked import asked_encoding
    from ..files import write_text
    from ..outputs import quantize_result
    from .output import print_json

    rounds = rounding != "nearest" or correct_bias != "false"
    _check_data(data, max_drop, rounds or weights == "auto")
    options.refuse_idle("--max-drop", max_drop is not None, {"--metric": metrics})
    options.refuse_idle("--data", data is not None, {"--samples": samples, "--state": options.given_states()})
    options.refuse_idle("--cache", cache is not None, {"--tensorrt": tensorrt})
    release = tensorrt or TENSORRT
    encoding = with_weights(
        asked_encoding(target_name, precision),
        block=None if block is None else int(block),
        symmetric=symmetric,
        accuracy_level=None if accuracy_level is None else int(accuracy_level),
    )
    if rounds or max_drop is not None or weights != "minmax":
        _needs_int8(encoding)
    read = read_model(Path(model))
    ranges = _ranges(read, ranges_file, encoding)
    plan = plan_precision(read, ranges, encoding, skip=skip)
    if cache is not None:
        check_cache(ranges, encoding, release)
    doubts: tuple[str, ...] = ()
    if max_drop is not None and data is not None:
        plan, doubts = on_samples.refined(
            read, plan, ranges, encoding, max_drop, options.data_ref(data, samples), metrics, skip, Path(output).parent
        )
    ref = options.data_ref(data, samples) if data is not None else None
    if weights == "auto" and ref is not None:
        weights = on_samples.best_weights(read, ranges, plan, encoding, Path(output).parent, ref)
    if rounds and ref is not None:
        written = on_samples.rounded(read, ranges, plan, encoding, Path(output), ref, rounding, correct_bias, weights)
    else:
        written = quantize(read, ranges, plan, encoding, Path(output), weights=weights)
    if encoding.name == "trt-fp16" and precision is None and ":" not in target_name:
        say(f"INT8 engines are not built for '{target_name}': {encoding.name} is written")
    say(f"{encoding.name}: nodes {_counts(plan, encoding)}")
    say(f"size: {_megabytes(read)} -> {_megabytes(written)}")
    notes = _notes(read, ranges, plan, encoding, target_name)
    here = resolve_target(target_name.partition(":")[0]).how == "cpu"
    if here and max_drop is not None and ref is not None and plan.quantized:
        notes.append(on_samples.speed(read, written, ref))
    for note in notes:
        say(note)
    if cache is not None:
        write_text(Path(cache), cache_text(read, ranges, plan, encoding, release))
        say(f"wrote {cache}, for TensorRT {release}")
    failed = [f"FAILED --max-drop {max_drop:g}: {doubt}" for doubt in doubts]
    if as_json:
        print_json(quantize_result(written, plan, (*notes, *failed)))
    else:
        options.written(written, as_json)
    for told in failed:
        say(told)
    return 1 if doubts else 0


def _needs_int8(encoding: Encoding) -> None:
    """Refuse what is for INT8 activations where there are none."""
    from trtcompress_graph.errors import UsageError

    if not encoding.int8:
        where = "--max-drop, --weights, --rounding, --correct-bias"
        hint = "leave these options out, or take a target in INT8"
        raise UsageError(f"'{encoding.name}' holds no INT8 activations", where=where, hint=hint)


def _notes(read: Model, ranges: Ranges, plan: PrecisionPlan, encoding: Encoding, target_name: str) -> list[str]:
    """What to doubt, and what else would make the model smaller where nothing could be quantized."""
    from trtcompress_calibration.doubts import altered, nothing_quantized, untold

    from ..smaller import smaller_formats

    why = nothing_quantized(plan, encoding)
    smaller = smaller_formats(read, target_name, encoding) if why else ""
    return [note for note in (*altered(ranges), *untold(ranges, encoding), plan.note or why, smaller) if note]


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


def _check_data(data: str | None, max_drop: float | None, rounds: bool) -> None:
    """Samples are given where something is measured on them, and only there."""
    from trtcompress_graph.errors import UsageError

    if data is None and max_drop is not None:
        raise UsageError("--max-drop needs --data: the drop is measured on samples", where="--max-drop")
    if data is None and rounds:
        where = "--weights, --rounding, --correct-bias"
        raise UsageError("integers are chosen from samples: give --data", where=where)
    if data is not None and max_drop is None and not rounds:
        raise UsageError(
            "--data needs --max-drop, --weights auto, --rounding or --correct-bias: nothing else reads samples",
            where="--data",
        )


def _ranges(model: Model, file: str | None, encoding: Encoding) -> Ranges:
    """The ranges of this very model; none at all where the encoding asks for none."""
    from trtcompress_graph.errors import UsageError
    from trtcompress_graph.ranges import VERSION, Ranges

    if file is not None:
        return options.read_ranges_of(model, file)
    hint = f"trtcompress calibrate {model.path} --data ... -o ranges.json"
    if encoding.calibrated:
        what = "FP8" if encoding.activation == "f8" else "INT8"
        why = f"{what} is scaled by them" if encoding.activation else "they tell which values would overflow in FP16"
        raise UsageError(f"{encoding.name} needs ranges: {why}", where="--ranges", hint=f"{hint}; then --ranges ...")
    return Ranges(VERSION, model.digest, "none", 0, {})
