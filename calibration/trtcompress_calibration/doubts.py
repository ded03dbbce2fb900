"""What is doubtful about a calibration: said beside the results, since none of it is an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.model import TensorSpec
from trtcompress_graph.ranges import Ranges

_UNTOLD = ("", "it works on no floats")
"""Reasons that tell nothing where nothing could be quantized."""

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


def nothing_quantized(plan: PrecisionPlan, encoding: Encoding) -> str:
    """Why an INT8 encoding leaves a graph without a node in INT8; empty where it does not."""
    if not encoding.int8 or plan.quantized:
        return ""
    reasons = Counter(node.reason for node in plan.nodes if node.reason not in _UNTOLD)
    ((reason, count),) = reasons.most_common(1) or [("no node works on floats", len(plan.nodes))]
    return f"{encoding.name}: nothing could be quantized: {reason} ({count} of {len(plan.nodes)} nodes)"
