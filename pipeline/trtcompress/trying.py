"""Ranges, channels, weights and rounding tried on samples that were held back; what helps is taken."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.errors import UsageError
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

from .held_back import Parted, fed_back, part, pieces, whole
from .trials import Trial, TriedModel

if TYPE_CHECKING:
    from trtcompress_calibration.samples import Sample

    from .config import Equalization, Method, Rounding

_log = logging.getLogger(__name__)

GAIN = 0.99
"""What lowers the error by less than a hundredth is not turned on."""

NOTHING = "no output depends on the samples smoothly, so that nothing can be measured"

UNMEASURED: Method = "mse"
"""Method of the ranges where none can be measured."""


def best_ranges(
    model: Model,
    samples: Iterable[Sample],
    *,
    encoding: Encoding,
    skip: Sequence[str] = (),
    batch: int = 8,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Ranges, tuple[Trial, ...]]:
    """Ranges by the method whose INT8 graph is nearest to the float model on samples that are held back.

    Each sample is read once, whatever the number of methods, and none is kept but those that are held back; the ranges
    are of all of them. Costs a quantized graph and a pass over the samples that are held back for each method. Where
    the model gives nothing that can be compared, they are by `UNMEASURED`, and a warning says so.

    Args:
        model: a float model.
        samples: as calibration takes them.
        encoding: an INT8 one, of the graph that is measured.
        skip: patterns of nodes that stay in float.
        batch: samples that go through the model together.
        progress: told how many samples were read.

    Raises:
        UsageError: the encoding is of floats.
        DataError: there are no samples, or they do not fit the model.
    """
    from trtcompress_calibration.collect import measure
    from trtcompress_calibration.methods import METHODS
    from trtcompress_calibration.placement import quantize
    from trtcompress_calibration.precision import plan_precision

    from .output_error import compared_tensors, output_error

    if not encoding.int8:
        raise UsageError(
            f"'{encoding.name}' holds no INT8, for which a method could be measured",
            where="method 'auto'",
            hint="give a target that takes INT8, or one of the methods",
        )
    tensors = compared_tensors(model)
    if not tensors:
        _log.warning("%s: '%s' is taken as method of the ranges", NOTHING, UNMEASURED)
        return measure(model, samples, batch_size=batch, progress=progress).ranges(UNMEASURED), ()
    fed, parted = fed_back(samples), Parted(whole(samples))
    measured = measure(model, pieces(samples, parted), batch_size=batch, progress=progress)
    back = parted.back or parted.first
    trials = []
    with tempfile.TemporaryDirectory(prefix="trtcompress-") as folder:
        for method in METHODS:
            ranges = measured.ranges(method)
            plan = plan_precision(model, ranges, encoding, skip=skip)
            graph = quantize(model, ranges, plan, encoding, Path(folder) / f"{method}.onnx")
            trials.append(Trial(method, output_error(model, graph, back, tensors, fed)))
    if parted.back:
        read = measured.samples
        measured += measure(model, pieces(samples, back), batch_size=batch, progress=lambda done: progress(read + done))
    best = min(trials, key=lambda trial: trial.error)
    if not math.isfinite(best.error):
        _log.warning("no method gives finite outputs of the model's shapes: '%s' is taken for the ranges", UNMEASURED)
        return measured.ranges(UNMEASURED), tuple(trials)
    return measured.ranges(best.what), tuple(trials)


def equalized_model(
    model: Model,
    samples: Iterable[Sample],
    out: Path,
    *,
    how: Equalization,
    method: Method,
    skip: Sequence[str],
    encoding: Encoding,
) -> TriedModel:
    """The model with equalized channels; `auto` calibrates and quantizes each way to see what it gives.

    Args:
        model: a float model.
        samples: to read from and, where `auto` decides, to measure on; iterated more than once.
        out: ONNX file to write.
        how: `auto`, `off`, `cross-layer` or `smooth`.
        method: of the ranges, where it is measured.
        skip: patterns of nodes that stay in float, where it is measured.
        encoding: of the graph that is measured.
    """
    from trtcompress_calibration.equalize.equalize import equalize, find_junctions
    from trtcompress_calibration.equalize.scales import METHODS
    from trtcompress_graph.load import copy_model

    from .output_error import compared_tensors, output_error

    if how == "auto" and not find_junctions(model, samples)[1]:
        how = "off"
    tensors = compared_tensors(model) if how == "auto" else ()
    if how == "auto" and not tensors:
        _log.warning("%s: the model is not equalized", NOTHING)
        how = "off"
    if how == "off":
        return _tried(copy_model(model, out), "off", ())
    if how != "auto":
        made, moved = equalize(model, samples, how, out)
        return _tried(made, how if moved else "off", ())
    (rest, back), fed = part(samples), fed_back(samples)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        ways = {"off": model}
        ways |= {name: equalize(model, rest, name, Path(folder) / f"{name}.onnx")[0] for name in METHODS}
        trials = tuple(
            Trial(
                name,
                output_error(model, _quantized(way, rest, method, skip, encoding, Path(folder)), back, tensors, fed),
            )
            for name, way in ways.items()
        )
        best = _best(trials)
        return _tried(copy_model(ways[best], out), best, trials)


def best_weights(
    model: Model, ranges: Ranges, plan: PrecisionPlan, encoding: Encoding, samples: Iterable[Sample], out: Path
) -> TriedModel:
    """The quantized graph with the reach of its weights that costs the outputs least.

    Args:
        model: a float model.
        ranges: of its tensors.
        plan: precision of every node.
        encoding: of the plan; one that is not INT8 is written, and nothing is measured.
        samples: to measure on.
        out: ONNX file to write.
    """
    from trtcompress_calibration.placement import quantize
    from trtcompress_calibration.weights import WEIGHT_METHODS
    from trtcompress_graph.load import copy_model

    from .output_error import compared_tensors, output_error

    first, tensors = next(iter(WEIGHT_METHODS)), compared_tensors(model) if encoding.int8 else ()
    if encoding.int8 and not tensors:
        _log.warning("%s: weights reach as far as '%s' says", NOTHING, first)
    if not tensors:
        return _tried(quantize(model, ranges, plan, encoding, out, weights=first), first, ())
    back, fed = part(samples)[1], fed_back(samples)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        graphs = {
            way: quantize(model, ranges, plan, encoding, Path(folder) / f"{way}.onnx", weights=way)
            for way in WEIGHT_METHODS
        }
        trials = tuple(Trial(way, output_error(model, graph, back, tensors, fed)) for way, graph in graphs.items())
        best = _best(trials)
        return _tried(copy_model(graphs[best], out), best, trials)


def rounded_model(
    model: Model,
    quantized: Model,
    samples: Iterable[Sample],
    out: Path,
    *,
    rounding: Rounding,
    correct_bias: bool | None,
    encoding: Encoding,
) -> TriedModel:
    """The quantized graph with its integers chosen anew; what is left open is measured.

    Args:
        model: the float model that was quantized.
        quantized: the graph made of it.
        samples: to read from and to measure on; iterated more than once.
        out: ONNX file to write.
        rounding: `auto`, `nearest` or `second-order`.
        correct_bias: None: as it is measured.
        encoding: of the graph.
    """
    from trtcompress_calibration.rounding.round import round_weights
    from trtcompress_graph.load import copy_model

    from .output_error import compared_tensors, output_error

    orders = (False, True) if rounding == "auto" else (rounding == "second-order",)
    biases = (False, True) if correct_bias is None else (correct_bias,)
    ways = {_words(order, bias): (order, bias) for order in orders for bias in biases}
    nothing = _words(False, False)
    if not encoding.int8:
        return _tried(copy_model(quantized, out), nothing, ())
    tensors = compared_tensors(model) if len(ways) > 1 else ()
    if len(ways) > 1 and not tensors:
        ways = dict([next(iter(ways.items()))])
        _log.warning("%s: rounding is %s", NOTHING, *ways)
    if list(ways) == [nothing]:
        return _tried(copy_model(quantized, out), nothing, ())
    if len(ways) == 1:
        ((words, (order, bias)),) = ways.items()
        made, _ = round_weights(model, quantized, encoding, samples, out, second_order=order, correct_bias=bias)
        return _tried(made, words, ())
    (rest, back), fed = part(samples), fed_back(samples)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        graphs: dict[str, Model] = {}
        for words, (order, bias) in ways.items():
            path = Path(folder) / f"{len(graphs)}.onnx"
            graphs[words] = quantized
            if order or bias:
                graphs[words], _ = round_weights(
                    model, quantized, encoding, rest, path, second_order=order, correct_bias=bias
                )
        trials = tuple(Trial(words, output_error(model, graph, back, tensors, fed)) for words, graph in graphs.items())
        best = _best(trials)
        return _tried(copy_model(graphs[best], out), best, trials)


def _quantized(
    model: Model, samples: Iterable[Sample], method: Method, skip: Sequence[str], encoding: Encoding, folder: Path
) -> Model:
    from trtcompress_calibration.collect import calibrate
    from trtcompress_calibration.placement import quantize
    from trtcompress_calibration.precision import plan_precision

    # Which one is best is asked behind equalization; here one serves to compare.
    ranges: Ranges = calibrate(model, samples, method="mse" if method == "auto" else method)
    plan = plan_precision(model, ranges, encoding, skip=skip)
    return quantize(model, ranges, plan, encoding, folder / "quantized.onnx")


def _best(trials: Sequence[Trial]) -> str:
    """The way of the least error; the first, if no other is clearly better."""
    best = min(trials, key=lambda trial: trial.error)
    return best.what if best.error < GAIN * trials[0].error else trials[0].what


def _words(second_order: bool, correct_bias: bool) -> str:
    return ("second-order" if second_order else "nearest") + (" with bias correction" if correct_bias else "")


def _tried(model: Model, chosen: str, trials: tuple[Trial, ...]) -> TriedModel:
    return TriedModel(model.path, model.digest, model.inputs, model.outputs, chosen, trials)
