"""Equalization and rounding tried on samples that were held back; what lowers the error is turned on."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.errors import UsageError
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

if TYPE_CHECKING:
    from trtcompress_calibration.samples import Sample

    from .config import Equalization, Method, Rounding

HELD_BACK = 32
"""Samples that are held back to measure on, at the most; every fourth one, so that three times as many are left."""

GAIN = 0.99
"""What lowers the error by less than a hundredth is not turned on."""

TRIALS = "trials.json"

_METHODS: tuple[Equalization, ...] = ("cross-layer", "smooth")


@dataclass(frozen=True, slots=True)
class Trial:
    """One way and what it gave.

    Attributes:
        what: in words.
        error: squared error of the outputs over their variance, of the INT8 graph as it is written, to the float
            model; the greatest of all outputs. Infinite where an output is not finite.
    """

    what: str
    error: float


@dataclass(frozen=True, slots=True)
class TriedModel(Model):
    """A model that was equalized or rounded.

    Attributes:
        chosen: what was turned on, in words.
        trials: what was measured; empty where the config decided.
    """

    FINGERPRINT: ClassVar = ("digest", "inputs", "outputs")
    chosen: str
    trials: tuple[Trial, ...]

    def told(self) -> dict[str, Any]:
        """What was chosen and what was tried, as JSON; an error that is not finite is null."""
        trials = [asdict(t) | {"error": t.error if math.isfinite(t.error) else None} for t in self.trials]
        return {"chosen": self.chosen, "trials": trials}

    def write_trials(self, path: Path) -> None:
        """Write what was tried and what was chosen."""
        path.write_text(json.dumps(self.told(), indent=1) + "\n", encoding="utf-8")


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
    are of all of them. Costs a quantized graph and a pass over the samples that are held back for each method.

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

    if not encoding.int8:
        raise UsageError(
            f"'{encoding.name}' holds no INT8, for which a method could be measured",
            where="method 'auto'",
            hint="give a target that takes INT8, or one of the methods",
        )
    parted = _Parted(samples)
    measured = measure(model, parted, batch_size=batch, progress=progress)
    back = parted.back or parted.first
    trials = []
    with tempfile.TemporaryDirectory(prefix="trtcompress-") as folder:
        for method in METHODS:
            ranges = measured.ranges(method)
            plan = plan_precision(model, ranges, encoding, skip=skip)
            graph = quantize(model, ranges, plan, encoding, Path(folder) / f"{method}.onnx")
            trials.append(Trial(method, output_error(model, graph, back)))
    if parted.back:
        read = measured.samples
        measured += measure(model, back, batch_size=batch, progress=lambda done: progress(read + done))
    return measured.ranges(min(trials, key=lambda trial: trial.error).what), tuple(trials)


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
    from trtcompress_graph.load import copy_model

    if how == "auto" and not find_junctions(model, samples)[1]:
        how = "off"
    if how == "off":
        return _tried(copy_model(model, out), "off", ())
    if how != "auto":
        return _tried(equalize(model, samples, how, out)[0], how, ())
    rest, back = held_back(tuple(samples))
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        ways = {"off": model}
        ways |= {name: equalize(model, rest, name, Path(folder) / f"{name}.onnx")[0] for name in _METHODS}
        trials = tuple(
            Trial(name, output_error(model, _quantized(way, rest, method, skip, encoding, Path(folder)), back))
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

    if not encoding.int8:
        return _tried(quantize(model, ranges, plan, encoding, out), next(iter(WEIGHT_METHODS)), ())
    back = held_back(tuple(samples))[1]
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        graphs = {
            way: quantize(model, ranges, plan, encoding, Path(folder) / f"{way}.onnx", weights=way)
            for way in WEIGHT_METHODS
        }
        trials = tuple(Trial(way, output_error(model, graph, back)) for way, graph in graphs.items())
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

    orders = (False, True) if rounding == "auto" else (rounding == "second-order",)
    biases = (False, True) if correct_bias is None else (correct_bias,)
    ways = {_words(order, bias): (order, bias) for order in orders for bias in biases}
    nothing = _words(False, False)
    if not encoding.int8 or list(ways) == [nothing]:
        return _tried(copy_model(quantized, out), nothing, ())
    if len(ways) == 1:
        ((words, (order, bias)),) = ways.items()
        made, _ = round_weights(model, quantized, encoding, samples, out, second_order=order, correct_bias=bias)
        return _tried(made, words, ())
    rest, back = held_back(tuple(samples))
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        graphs: dict[str, Model] = {}
        for words, (order, bias) in ways.items():
            path = Path(folder) / f"{len(graphs)}.onnx"
            graphs[words] = quantized
            if order or bias:
                graphs[words], _ = round_weights(
                    model, quantized, encoding, rest, path, second_order=order, correct_bias=bias
                )
        trials = tuple(Trial(words, output_error(model, graph, back)) for words, graph in graphs.items())
        best = _best(trials)
        return _tried(copy_model(graphs[best], out), best, trials)


class _Parted:
    """`held_back` of samples that come one by one: gives what may be learned from, once, and keeps the others.

    Attributes:
        back: what is measured on; empty where there are fewer than four.
        first: the first three.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples
        self.back: list[Sample] = []
        self.first: list[Sample] = []

    def __iter__(self) -> Iterator[Sample]:
        for i, sample in enumerate(self._samples):
            if i < 3:
                self.first.append(sample)
            if i % 4 == 3 and len(self.back) < HELD_BACK:
                self.back.append(sample)
            else:
                yield sample


def held_back(samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """What may be learned from and what is measured on; all are both where there are fewer than four."""
    back = tuple(samples[3::4][:HELD_BACK])
    if not back:
        return tuple(samples), tuple(samples)
    kept = {id(sample) for sample in back}
    return tuple(s for s in samples if id(s) not in kept), back


def output_error(model: Model, graph: Model, samples: Iterable[Sample]) -> float:
    """Squared error of the float outputs over their variance, the greatest of all outputs."""
    import numpy as np

    from trtcompress_calibration.batching import batches
    from trtcompress_engines.backends.onnxruntime import open_graph

    sums: dict[str, np.ndarray] = {}
    with open_graph(model.path) as exact, open_graph(graph.path, emulate=True) as tried:
        for batch in batches(samples, model.inputs, 8):
            found = tried.infer(dict(batch.inputs))
            for name, wanted in exact.infer(dict(batch.inputs)).items():
                if wanted.dtype.kind != "f" or found[name].shape != wanted.shape:
                    continue
                y = wanted.astype(np.float64)
                with np.errstate(invalid="ignore", over="ignore"):
                    lost = np.square(found[name].astype(np.float64) - y).sum()
                part = np.array([lost, np.square(y).sum(), y.sum(), y.size])
                sums[name] = sums.get(name, np.zeros(4)) + part
    errors = [
        float(lost) / max(float(squares - total * total / count), float(np.finfo(np.float64).tiny))
        for lost, squares, total, count in sums.values()
        if count
    ]
    return max((error if math.isfinite(error) else math.inf for error in errors), default=0.0)


def _quantized(
    model: Model, samples: Sequence[Sample], method: Method, skip: Sequence[str], encoding: Encoding, folder: Path
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
