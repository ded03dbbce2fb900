"""Whether a cut holds together, found before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from trtcompress_graph.errors import PruneError

from .cut import box
from .factors import Factor, Ints, Shape, covered, factor_of
from .parameters import CutGraph, Parameters, of_node
from .replay import MOVED, collapses, replay
from .rules.movement import NOTHING

if TYPE_CHECKING:
    import onnx_ir as ir


def check_nodes(cut: CutGraph, factors: Mapping[str, tuple[Factor, ...]], nodes: Iterable[ir.Node]) -> None:
    """Check that every tensor stays a box, and that data movement puts what is left where it was.

    Raises:
        PruneError: with the node that does not hold.
    """
    for node in nodes:
        stored = [value for value in node.inputs if value is not None and value.name in cut.constants]
        for value in (*node.outputs, *stored):
            cut.after(value)
        for value in stored:
            _check_stored(cut, factors, value)
        wanted = of_node(cut, node)
        if node.op_type in MOVED and cut.alive.touched(str(node.inputs[0].name if node.inputs[0] else "")):
            _replay(cut, factors, node, wanted)


def _check_stored(cut: CutGraph, factors: Mapping[str, tuple[Factor, ...]], value: ir.Value) -> None:
    """A weight whose axes are under several factors must be left with as many elements as its shape says."""
    name = str(value.name)
    held = factors.get(name, ())
    if len(held) < 2 or sum(len(f.axes) for f in held) == len(covered(held)):
        return
    mask = cut.alive.mask(name, cut.before(value))
    if mask is not None and np.broadcast_to(mask, cut.before(value)).sum() != prod(cut.after(value)):
        raise PruneError("the cut would not leave a whole tensor", where=f"tensor '{name}'", hint="keep it with --keep")


def _replay(cut: CutGraph, factors: Mapping[str, tuple[Factor, ...]], node: ir.Node, wanted: Parameters) -> None:
    x = node.inputs[0]
    assert x is not None
    shapes = [cut.after(value) for value in node.outputs]
    for factor in factors.get(str(x.name), ()):
        spread = _spread(_shrunk(cut, factor, str(x.name)), factor, cut.after(x))
        arrays = [spread if collapses(node) else np.broadcast_to(spread, cut.after(x))]
        arrays += [_parameter(cut, node, wanted, place) for place in range(1, len(node.inputs))]
        try:
            found = replay(node, arrays, shapes, fill=NOTHING)
        except (ValueError, IndexError) as error:
            raise _breaks(node) from error
        for value, labels in zip(node.outputs, found, strict=True):
            _compare(cut, factors.get(str(value.name), ()), node, str(value.name), labels)


def _shrunk(cut: CutGraph, factor: Factor, name: str) -> Ints:
    """Labels of a factor without the dead ones; with its number of axes, some may have length 1 now."""
    alive = cut.alive.kept(factor.labels)
    return factor.labels[alive].reshape(box(alive, name))


def _spread(labels: Ints, factor: Factor, shape: Shape) -> Ints:
    lengths = [1] * len(shape)
    for axis, length in zip(factor.axes, labels.shape, strict=True):
        lengths[axis] = length
    return labels.reshape(lengths)


def _compare(cut: CutGraph, factors: tuple[Factor, ...], node: ir.Node, name: str, labels: Ints) -> None:
    """What landed where must be what was found in the full graph, without what is dead."""
    if factor_of(labels) is None:
        return
    for factor in factors:
        expected = _spread(_shrunk(cut, factor, name), factor, labels.shape)
        fits = all(1 in pair or pair[0] == pair[1] for pair in zip(expected.shape, labels.shape, strict=True))
        if fits and ((expected == labels) | (labels == NOTHING)).all():
            return
    raise _breaks(node)


def _parameter(cut: CutGraph, node: ir.Node, wanted: Parameters, place: int) -> Any:
    if place in wanted.inputs:
        return wanted.inputs[place]
    value = node.inputs[place]
    if value is None:
        return None
    held = cut.stored(value)
    return held if held is not None else np.zeros(cut.before(value), np.int64)


def _breaks(node: ir.Node) -> PruneError:
    return PruneError(
        "the cut would mix up what it moves", where=f"{node.op_type} '{node.name}'", hint="keep it with --keep"
    )
