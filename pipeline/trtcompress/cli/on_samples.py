"""What `trtcompress quantize` chooses from samples: nodes, the reach of weights, integers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from .counting import counting
from .main import say

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset
    from trtcompress_graph.encoding import Encoding, PrecisionPlan
    from trtcompress_graph.model import Model
    from trtcompress_graph.ranges import Ranges

    from ..config import Rounding, WeightMethod
    from ..stage import DataRef


def best_weights(
    model: Model, ranges: Ranges, plan: PrecisionPlan, encoding: Encoding, folder: Path, data: DataRef
) -> WeightMethod:
    """How far weights reach where that is measured to cost the outputs least."""
    from tempfile import TemporaryDirectory

    from trtcompress_calibration.rounding.round import SAMPLES

    from .. import trying
    from ..datasets import open_data

    samples = open_data(data, model, samples=min(SAMPLES, data.samples or SAMPLES))
    with TemporaryDirectory(dir=folder) as aside:
        made = trying.best_weights(model, ranges, plan, encoding, samples, Path(aside) / "model.onnx")
    for trial in made.trials:
        say(f"weights by {trial.what}: error {trial.error:.4g} of the outputs' variance")
    return cast("WeightMethod", made.chosen)


def rounded(
    model: Model,
    ranges: Ranges,
    plan: PrecisionPlan,
    encoding: Encoding,
    out: Path,
    data: DataRef,
    rounding: Rounding,
    correct_bias: Literal["auto", "true", "false"],
    weights: WeightMethod,
) -> Model:
    """The quantized graph with its integers chosen anew."""
    from tempfile import TemporaryDirectory

    from trtcompress_calibration.placement import quantize
    from trtcompress_calibration.rounding.round import SAMPLES

    from ..datasets import open_data
    from ..trying import rounded_model

    with TemporaryDirectory(dir=out.parent) as folder:
        made = rounded_model(
            model,
            quantize(model, ranges, plan, encoding, Path(folder) / out.name, weights=weights),
            open_data(data, model, samples=min(SAMPLES, data.samples or SAMPLES)),
            out,
            rounding=rounding,
            correct_bias=None if correct_bias == "auto" else correct_bias == "true",
            encoding=encoding,
        )
    for trial in made.trials:
        say(f"{trial.what}: error {trial.error:.4g} of the outputs' variance")
    say(f"rounding: {made.chosen}")
    return made


def refined(
    model: Model,
    plan: PrecisionPlan,
    ranges: Ranges,
    encoding: Encoding,
    max_drop: float,
    data: DataRef,
    metrics: tuple[str, ...],
    skip: tuple[str, ...],
    out: Path,
) -> tuple[PrecisionPlan, tuple[str, ...]]:
    """The plan, with as many nodes in float as the limit asks for; and why no drop can be measured, where that is so.

    A metric whose value for the float model is no better than chance keeps no limit, as in a build.
    """
    from trtcompress_engines.metrics import find_metric

    from ..datasets import open_data, open_evaluation
    from ..refining import Judge, Limits, refine
    from ..stage import MetricRef

    for name in metrics:
        find_metric(name, data.base)  # an unknown one is refused before any work

    doubts: dict[str, None] = {}

    def opened() -> Dataset:
        return open_data(data, model)

    with counting("samples") as progress:
        judge = Judge(
            reference=model,
            pruned=None,
            data=lambda: open_evaluation(data, model),
            metrics=tuple(MetricRef(name, data.base, "") for name in metrics),
            axes={},
            limits=Limits(max_drop=max_drop),
            progress=progress,
            doubted=lambda why: doubts.update({why: None}),
        )
        return refine(model, plan, judge, ranges, encoding, opened, out, skip), tuple(doubts)


def speed(model: Model, written: Model, data: DataRef) -> str:
    """How fast a graph for this CPU is beside the float model, in words; about a second."""
    from trtcompress_calibration.batching import batches
    from trtcompress_engines.backends.onnxruntime import open_graph
    from trtcompress_engines.measure import time_pair

    from ..datasets import open_data

    feeds = {1: next(batches(open_data(data, model, samples=1), model.inputs, 1)).inputs}
    with open_graph(written.path) as tried, open_graph(model.path) as exact:
        times = time_pair(tried, exact, feeds, seconds=0.5)[0].speedup
    pays = "" if times >= 1 else "; it does not pay here: ship the float model, or quantize what has larger layers"
    return f"speed: {times:.2f} times that of the float model at batch size 1, on this CPU{pays}"
