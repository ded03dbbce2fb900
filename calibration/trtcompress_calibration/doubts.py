"""What is doubtful about a calibration: said beside the results, or refused where nothing good can come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.errors import DataError
from trtcompress_graph.model import TensorSpec
from trtcompress_graph.ranges import Ranges, TensorRange

from .data import Dataset
from .likeness import unlike
from .methods import TENSORRT_BINS, TENSORRT_LEVELS
from .operators import NO_FLOATS, WEIGHTED
from .trt_cache import METHOD as CACHE

_UNTOLD = ("", NO_FLOATS)
"""Reasons that tell nothing where nothing could be quantized."""

_LEAST_SHARE = dict.fromkeys(("entropy", "mse", "mse-u8"), 0.99 * TENSORRT_LEVELS / TENSORRT_BINS)
_LEAST_SHARE["minmax"] = 0.99
"""Least share of the greatest value that a method keeps, by its name."""

_MOST_CLIPPED = {"percentile": 1e-4, "minmax": 0.0}
"""Greatest share of the values that a method clips."""

FEW = 16
"""Fewer samples than this seldom show what values a tensor can take."""


def doubts(ranges: Ranges, inputs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """One sentence for each thing that makes ranges doubtful.

    Args:
        ranges: as measured.
        inputs: inputs of the model; only those of floats are measured, constant masks and kinds are usual.
    """
    found = []
    if ranges.samples < FEW:
        found.append(
            f"calibrated on {ranges.samples} {'sample' if ranges.samples == 1 else 'samples'}: give at least {FEW} "
            "that are like those in use, INT8 may be worse on others"
        )
    for spec in inputs:
        held = ranges.tensors.get(spec.name)
        if held is not None and held.min == held.max:
            found.append(
                f"the input '{spec.name}' is {held.min:g} everywhere in all calibration samples: the ranges say "
                "nothing of other values"
            )
    return tuple(found)


def refuse_constant(ranges: Ranges, inputs: Sequence[TensorSpec], where: str) -> None:
    """Samples in which every input is one number throughout calibrate nothing.

    Args:
        ranges: as measured.
        inputs: inputs of the model; one that is not of floats (tokens) may vary unseen, so that nothing is refused.
        where: source of the samples.

    Raises:
        DataError: they are like that.
    """
    held = [ranges.tensors.get(spec.name) for spec in inputs]
    if not held or any(one is None or one.min != one.max for one in held):
        return
    value = next(one.min for one in held if one is not None)
    kind = "zero" if value == 0 else f"{value:g} throughout"
    raise DataError(
        f"every sample is {kind}: the ranges of the model's tensors would say nothing of real inputs",
        where=where,
        hint=f"give at least {FEW} samples that are like those in use, preprocessed as the model wants them",
    )


def altered(ranges: Ranges) -> tuple[str, ...]:
    """A sentence where thresholds are not such as a method takes from what it saw: ranges may be edited by hand."""
    found = [name for name, held in ranges.tensors.items() if held.threshold is not None and _altered(held)]
    if not found:
        return ()
    held = ranges.tensors[found[0]]
    more = f" and of {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"the threshold of '{found[0]}'{more} is not what its samples give ({held.threshold:.3g}, where the greatest "
        f"value was {held.amax:.3g} and {100 * held.clipped:.2g} % are said to be clipped): was it edited?",
    )


def untold(ranges: Ranges, encoding: Encoding) -> tuple[str, ...]:
    """A sentence where overflow in FP16 cannot be told: a calibration cache says where values are clipped alone."""
    if encoding.float_type != "float16" or all(held.method != CACHE for held in ranges.tensors.values()):
        return ()
    return (
        "a calibration cache does not tell how far values reach: what may overflow in FP16 stays in FP32; ranges by "
        "trtcompress calibrate tell",
    )


def _altered(held: TensorRange) -> bool:
    """Wider than twice the greatest value, clipped where nothing lies beyond, or narrower than its method makes it."""
    threshold = held.threshold or 0.0
    if threshold > 2 * held.amax > 0 or (threshold >= held.amax and held.clipped > 0):
        return True
    least = 0.9 if held.clipped == 0 else _LEAST_SHARE.get(held.method, 0.0)
    return threshold < least * held.amax or held.clipped > 1.01 * _MOST_CLIPPED.get(held.method, 1.0)


def refuse_unlike(calibration: Dataset, evaluation: Dataset, inputs: Sequence[TensorSpec]) -> None:
    """Calibration on samples that are grossly unlike those of the evaluation gives ranges that do not fit.

    Raises:
        DataError: they are unlike; see `likeness.unlike`.
    """
    told = unlike(calibration, evaluation, inputs)
    if told:
        raise DataError(
            f"the calibration samples are unlike the evaluation samples: {told}",
            where=f"{calibration.source}, {evaluation.source}",
            hint="preprocess both in the same way (mean, std, scale, order of inputs), and take samples of one kind",
        )


def nothing_quantized(plan: PrecisionPlan, encoding: Encoding) -> str:
    """Why an encoding that quantizes leaves a graph without a quantized node; empty where it does not.

    The reason is that of most nodes with weights, on which the others depend; of most of all where there are none.
    """
    if not (encoding.activation or encoding.integers) or plan.quantized:
        return ""
    told = [node for node in plan.nodes if node.reason not in _UNTOLD]
    weighted = [node for node in told if node.op in WEIGHTED]
    reasons = Counter(node.reason for node in weighted or told)
    ((reason, count),) = reasons.most_common(1) or [("no node works on floats", len(plan.nodes))]
    of = f"{len(weighted)} nodes with weights" if weighted else f"{len(plan.nodes)} nodes"
    return f"{encoding.name}: nothing could be quantized: {reason} ({count} of {of})"
