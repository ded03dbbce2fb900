"""What INT8 costs where: the damage of each quantized node and tensor at the output, measured one at a time.

Quantizing one node and running the whole graph (leave-one-out) costs a session and a pass over all samples for each
node. Here a few samples from all over the set go through the float graph once, node by node; at each place only what
lies behind it runs again, with the node's result as INT8 makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.errors import DataError
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

from .parts import PartedGraph
from .samples import Array, Sample
from .walk import Damage, Walk

FEWEST, MOST, SHARE = 4, 32, 16
"""Samples that are taken where it is not said: one of `SHARE`, within these."""

_BATCH = 8


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Damages of a model under an encoding, the greatest first.

    Attributes:
        outputs: tensors that were compared; see `trtcompress_graph.comparable`.
    """

    encoding: str
    samples: int
    outputs: tuple[str, ...]
    nodes: tuple[Damage, ...]
    tensors: tuple[Damage, ...]


def sensitivity(
    model: Model,
    ranges: Ranges,
    plan: PrecisionPlan,
    encoding: Encoding,
    data: Iterable[Sample],
    *,
    samples: int | None = None,
    tensors: bool = True,
    threads: int = 0,
    optimize: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Measure the damage of each INT8 node of a plan, and of each tensor that it quantizes.

    What is not quantized is computed in float32, Q/DQ pairs as they are written; scales are those of the whole
    quantized graph. Costs about half a pass over the few samples for each node, and as much for each tensor.

    Args:
        model: the float model.
        ranges: of its tensors.
        plan: precision of every node.
        encoding: of the plan.
        data: samples; read once.
        samples: how many are taken from all over the data; None is a sixteenth, but 4 to 32.
        tensors: measure single tensors too.
        threads: 0 is all cores that this process may use.
        optimize: let ONNX Runtime fuse float nodes; without it results equal those of the quantized graph to the bit.
        progress: told after each place.

    Raises:
        DataError: the model fails on a sample, its answer is not finite, or there is nothing to compare.
        PlacementError: the plan is not of this model.
        DataError: a tensor has no range.
    """
    import onnx_ir as ir

    from trtcompress_graph.comparable import comparable

    from .layout import lay_out
    from .opening import open_graph
    from .placement import check_plan, int8_nodes, recurrent_nodes
    from .precision import needed_opset
    from .spots import node_spots

    loaded = open_graph(model, needed_opset(encoding))
    outputs = comparable(loaded.graph)
    if not outputs:
        raise DataError("no output depends on the samples smoothly, so that damage could be measured")
    check_plan(model, loaded.graph, plan, encoding)
    int8 = int8_nodes(loaded.graph, plan, encoding)
    pairs = lay_out(loaded.graph, int8, encoding, ranges.tensors)
    spots = node_spots(loaded.graph, int8.union(recurrent_nodes(loaded.graph, plan, encoding)), pairs, encoding)
    few = spread(data, samples)
    feeds = _batched(few, model)
    graph = PartedGraph(ir.to_proto(loaded), threads, optimize=optimize)
    walk = Walk(graph, feeds, outputs, encoding, spots, pairs if tensors else ())
    found = list(walk.damages(weights=tensors, progress=progress))
    ranked = sorted(found, key=lambda each: (-each.damage, each.name))
    return Sensitivity(
        encoding.name,
        len(few),
        outputs,
        tuple(each for each in ranked if each.kind == "node"),
        tuple(each for each in ranked if each.kind != "node"),
    )


def spread(data: Iterable[Sample], count: int | None = None) -> list[Sample]:
    """Some samples at equal distances: data is often sorted. Reads once, and keeps less than three times as many."""
    kept: list[Sample] = []
    stride, total, most = 1, 0, count or MOST
    for total, sample in enumerate(data, 1):
        if (total - 1) % stride == 0:
            kept.append(sample)
            if len(kept) > 2 * most:
                kept, stride = kept[::2], stride * 2
    wanted = count or min(max(FEWEST, total // SHARE), MOST)
    if len(kept) <= wanted:
        return kept
    return [kept[i] for i in sorted({int(i) for i in np.linspace(0, len(kept) - 1, wanted).round()})]


def _batched(samples: Sequence[Sample], model: Model) -> list[dict[str, Array]]:
    from .batching import batches

    return [dict(batch.inputs) for batch in batches(samples, model.inputs, _BATCH)]
