"""Which nodes stay in float so that an INT8 graph keeps its accuracy: measured, where it fails without."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtcompress_engines.gates import ROUNDING, GateLimits, judge, verdict
from trtcompress_graph.axes import Axes
from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

from .remembered import Answers
from .stage import MetricRef, Progress

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset

    from .validation import Emulation


@dataclass(frozen=True, slots=True)
class Limits:
    """How accurate a graph must be.

    Attributes:
        max_drop: of each metric; without metrics the squared error of each output as a share of its power. None: the
            gates decide.
        max_metric_drop: gate on each metric.
        min_cosine: gate on each output.
        min_snr_db: the same, in dB.
    """

    max_drop: float | None = None
    max_metric_drop: float | None = None
    min_cosine: float | None = None
    min_snr_db: float | None = None

    def kept(self, found: Emulation) -> bool:
        """Whether what was measured keeps within."""
        if self.max_drop is None:
            limits = GateLimits(
                max_metric_drop=self.max_metric_drop, min_cosine=self.min_cosine, min_snr_db=self.min_snr_db
            )
            gates = judge(
                limits,
                parity=found.parity,
                metrics=[replace(metric, doubt="") for metric in found.metrics],  # no fault of the graph's
                speeds=(),
                size_bytes=None,
                emulated=False,
                measured=True,
                to_pruned=found.to_pruned,
            )
            return verdict(gates) != "fail"
        drops = [metric.drop for metric in found.metrics]
        losses = drops or [10 ** (-parity.snr_db / 10) for parity in found.to_pruned or found.parity]
        return all(loss <= self.max_drop + ROUNDING for loss in losses)


@dataclass(frozen=True, slots=True)
class Judge:
    """Measures graphs that were quantized.

    Attributes:
        reference: the model that the build started from.
        pruned: the float model after a cut; None where nothing was pruned.
        data: evaluation samples, opened anew.
        axes: ranges of dynamic axes, which bound the batch.
        doubted: told why a metric of the reference itself is no ground to measure a drop from.
    """

    reference: Model
    pruned: Model | None
    data: Callable[[], Dataset]
    metrics: tuple[MetricRef, ...]
    axes: Axes
    limits: Limits
    progress: Progress
    doubted: Callable[[str], None] = lambda why: None
    _answers: Answers = field(default_factory=Answers)

    def accepts(self, graph: Model, encoding: Encoding) -> bool:
        """Whether a graph is accurate enough: with this CPU's kernels where they are for it, else as it is written."""
        from .checking import emulate_graph

        found = emulate_graph(
            *(self.reference, graph, encoding.name, self.data(), self.metrics, self.axes, self.progress),
            pruned=self.pruned,
            kernels=encoding.activation == "u8",
            answers=self._answers,
        )
        for metric in found.metrics:
            if metric.doubt:
                self.doubted(metric.doubt)
        return self.limits.kept(found)


def refine(
    model: Model,
    plan: PrecisionPlan,
    judge: Judge,
    ranges: Ranges,
    encoding: Encoding,
    samples: Callable[[], Dataset],
    out: Path,
    skip: Sequence[str] = (),
) -> PrecisionPlan:
    """The plan as it is where it is accurate enough, else one that keeps more nodes in float.

    Costs a pass over the evaluation data, and a dozen or two of the quantized graph where the plan is not accurate
    enough.

    Args:
        model: the float model that is quantized.
        plan: made for it.
        judge: says what is accurate enough.
        ranges: of its tensors.
        encoding: of the plan.
        samples: for the ranking, opened anew; not needed where the plan is accurate enough.
        out: folder in which graphs are written to be measured, one at a time, and removed.
        skip: patterns of nodes that are not quantized in any case.
    """
    from trtcompress_calibration.mixed import mixed_precision
    from trtcompress_calibration.placement import quantize
    from trtcompress_calibration.precision import plan_precision
    from trtcompress_calibration.sensitivity import sensitivity

    def replan(kept: Mapping[str, str]) -> PrecisionPlan:
        return plan_precision(model, ranges, encoding, skip=skip, kept=kept)

    def meets(tried: PrecisionPlan) -> bool:
        with tempfile.TemporaryDirectory(prefix=".tried.", dir=out) as folder:
            graph = quantize(model, ranges, tried, encoding, Path(folder) / "model.onnx")
            return judge.accepts(graph, encoding)

    if not encoding.int8 or not plan.quantized or meets(plan):
        return plan
    ranked = sensitivity(model, ranges, plan, encoding, samples(), tensors=False).nodes
    found = mixed_precision(replan, ranked, meets)
    if found is None:
        told = "it is not accurate enough with every node in float either, so that all that can be is in INT8"
        return replace(plan, note=f"{encoding.name}: {told}")
    return found.plan
