"""Solving the weights of a cut graph anew, layer by layer in order, against the full graph; nothing is trained.

Each layer moves by ridge least squares towards what its output lacks. Its inputs are those of the cut graph, with all
layers before it solved already, so that errors of earlier layers are made up for by later ones (as in "A Fast
Post-Training Pruning Framework for Transformers", arXiv 2204.09656, here for whole layers and any graph).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_calibration.batching import full_batches
from trtcompress_calibration.gram import Gram, by_channel, row_limit, sampled
from trtcompress_calibration.layers import Layer
from trtcompress_calibration.samples import Sample
from trtcompress_graph.load import load_ir, save_ir
from trtcompress_graph.model import Model

from .coupling import Coupling
from .cut import Cut
from .factors import Shape
from .repair import Step, best_step, repaired
from .segments import Parts, Segment, Spool, live_in, segments
from .solvable import Task, bias_of, own_biases, tasks_of

if TYPE_CHECKING:
    import onnx_ir as ir

Array = NDArray[Any]
Progress = Callable[[str, int, int | None], None]

_REPAIR_RIDGE = 1e-2
"""Of the repair from a layer's own moments, which starts the solving."""

_OVERSAMPLED = 4
"""Neighbouring positions are alike: a layer of many rows takes one of so many, from more samples."""

_BATCHES = 16
"""Fewer batches than this are not left out."""


def reconstruct(
    full: Model,
    pruned: Model,
    out: Path,
    coupling: Coupling,
    cut: Cut,
    data: Iterable[Sample],
    *,
    shapes: Mapping[str, Shape],
    grams: Mapping[str, Gram] | None = None,
    reference: Model | None = None,
    limit_rows: int = 400_000,
    progress: Progress = lambda what, done, total: None,
) -> Model:
    """Write the cut model with weights that bring its tensors back to those of the full one.

    Every linear layer is solved that reads something cut or changed by the cut: its living outputs are brought to
    the full model's. Behind a layer, an addition of another branch (its error is made up for) and a Relu or Clip
    (where both models clamp, nothing is wanted) are looked through. Layers that share their weight are left as they
    are. A layer that no step brings closer, in the half of the samples that the step was not found in, keeps its
    weights.

    Args:
        full: the simplified model, of full width.
        pruned: the same after `apply_cut`; names are the same.
        out: the file to write.
        coupling: of the full graph.
        cut: what went.
        data: samples without labels; read once.
        shapes: concrete shape of every tensor of the full graph.
        grams: moments of layers' inputs in the full model (`collect_grams`); layers that lost inputs start from
            their own repair.
        reference: the model from before residual blocks were taken out of `full`; None: nothing was taken out.
        limit_rows: rows that a layer sees, about; fewer where a row is wide.
        progress: told how many layers are solved.

    Raises:
        DataError: there are no samples, or a model fails on one.
    """
    wide, small = load_ir(full), load_ir(pruned)
    whole = wide if reference is None else load_ir(reference)
    tasks = tasks_of(wide.graph, shapes, coupling, cut, whole.graph)
    own_biases(small.graph, tasks)
    with tempfile.TemporaryDirectory(prefix="trtcompress-") as folder:
        parts = (Parts(whole, str((reference or full).path)), Parts(small, str(pruned.path)))
        solver = _Solver(wide.graph, parts, shapes, limit_rows)
        if tasks:
            solver.read(full, data, Path(folder))
        for segment in _segments(wide, shapes, tasks):
            inside = [task for task in tasks if segment.start <= task.place < segment.stop]
            for task in inside:
                progress("solving layers", tasks.index(task), len(tasks))
                if grams is not None and task.layer.name in grams:
                    _repair(wide.graph, small.graph, task, grams[task.layer.name])
                step = solver.step(task)
                if step is not None:
                    _move(small.graph, task.layer, step)
            if any(task.place >= segment.stop for task in tasks):
                solver.advance(segment)
        progress("solving layers", len(tasks), len(tasks))
    return save_ir(small, out)


def _segments(wide: ir.Model, shapes: Mapping[str, Shape], tasks: Sequence[Task]) -> list[Segment]:
    from trtcompress_graph.cost import graph_cost

    costs = {node.name: node.macs for node in graph_cost(wide.graph, shapes).nodes}
    return segments(wide.graph, shapes, costs, [task.place for task in tasks])


@dataclass(frozen=True, slots=True)
class _Read:
    """One batch that was kept: how many samples, and its size against the shapes that are known."""

    samples: int
    size: float


class _Solver:
    """Both graphs, and where they have got to."""

    def __init__(self, graph: ir.Graph, parts: tuple[Parts, Parts], shapes: Mapping[str, Shape], limit: int) -> None:
        self._parts = parts
        self._live = [live_in(part.model.graph, graph) for part in parts]
        self._shapes = shapes
        self._limit = limit
        self._batches: list[_Read] = []
        self._folder = Path()
        self._spools: tuple[Spool, ...] = ()

    def read(self, model: Model, data: Iterable[Sample], folder: Path) -> None:
        """Keep the samples."""
        self._folder = folder
        spool = Spool(folder / "inputs")
        self._spools = (spool, spool)
        usual = sum(math.prod(self._shapes[spec.name]) for spec in model.inputs)
        for number, batch in enumerate(full_batches(data, model.inputs)):
            spool.write(number, batch.inputs)
            size = sum(array.size for array in batch.inputs.values())
            self._batches.append(_Read(batch.count, size / usual))

    def advance(self, segment: Segment) -> None:
        """Run both graphs to the end of a segment and keep what is alive there."""
        old = self._spools
        new = tuple(Spool(self._folder / f"{segment.stop}-{kind}") for kind in ("full", "pruned"))
        for parts, source, target, live in zip(self._parts, old, new, self._live, strict=True):
            part = parts.part(source.names, live[segment.stop])
            for number in range(len(self._batches)):
                target.write(number, part.run(source.read(number, part.needs)))
        self._spools = new
        for spool in {*old}:
            spool.remove()

    def step(self, task: Task) -> Step | None:
        """The step of one layer that helps most."""
        layer = task.layer
        halves = (Gram(), Gram())
        full, pruned = (
            parts.part(spool.names, names)
            for parts, spool, names in zip(
                self._parts, self._spools, ((task.wanted,), (layer.x, task.compared)), strict=True
            )
        )
        numbers, share = self._choice(layer)
        for turn, number in enumerate(numbers):
            wanted = full.run(self._spools[0].read(number, full.needs))[task.wanted]
            given = pruned.run(self._spools[1].read(number, pruned.needs))
            places = sampled((task.place, number), layer.count(given[layer.x].shape), share)
            rows = layer.rows(given[layer.x], places)
            lacks = layer.outputs(wanted, places)[:, task.living] - layer.outputs(given[task.compared], places)
            for half in (0, 1) if len(numbers) == 1 else (turn % 2,):
                mine = slice(half, None, 2) if len(numbers) == 1 else slice(None)
                _add(halves[half], layer, rows[mine], lacks[mine])
        return best_step(halves, layer.bias is not None or layer.kind != "matmul") if halves[1].count else None

    def _choice(self, layer: Layer) -> tuple[Sequence[int], float]:
        """Batches to take, and the share of their rows."""
        shape = self._shapes[layer.x]
        expected = layer.count(shape) * sum(read.size for read in self._batches)
        wanted = row_limit(layer, shape, self._limit)
        count = len(self._batches)
        stride = max(1, min(int(expected / (_OVERSAMPLED * wanted)), count // _BATCHES))
        return range(0, count, stride), wanted * stride / expected


def _add(gram: Gram, layer: Layer, rows: Array, lacks: Array) -> None:
    if layer.kind == "depthwise":
        gram.add(by_channel(rows, layer.window), by_channel(lacks, 1))
    elif len(rows):
        gram.add(rows, lacks)


def _repair(full: ir.Graph, pruned: ir.Graph, task: Task, gram: Gram) -> None:
    """Start a layer that lost inputs from the repair that its own moments give."""
    layer = task.layer
    if layer.kind == "depthwise" or task.features.all() or gram.sums.shape != task.features.shape:
        return
    matrix, shift = repaired(
        gram, layer.matrix(_held(full, layer.weight))[:, task.living], task.features, _REPAIR_RIDGE
    )
    like = _held(pruned, layer.weight)
    if np.isfinite(matrix).all() and np.isfinite(shift).all():
        _move(pruned, layer, Step(matrix - layer.matrix(like), shift if layer.bias or layer.kernel else shift * 0))


def _move(graph: ir.Graph, layer: Layer, step: Step) -> None:
    """Add a step to the weights of a layer."""
    import onnx_ir as ir

    matrix, shift = step.matrix, step.bias
    if layer.kind == "depthwise":
        matrix, shift = matrix[..., 0].T, shift[..., 0]
    old = _held(graph, layer.weight)
    values = {layer.weight: layer.stored(layer.matrix(old) + matrix, old)}
    bias = bias_of(graph, layer)
    if bias is not None:
        held = _held(graph, bias)
        values[bias] = (held + shift).astype(held.dtype)
    if all(np.isfinite(array).all() for array in values.values()):
        for name, array in values.items():
            graph.initializers[name].const_value = ir.Tensor(array, name=name)


def _held(graph: ir.Graph, name: str) -> Array:
    tensor = graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()
