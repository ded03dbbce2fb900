"""Data movement: no rule of its own. The operator runs on tensors of labels, and where they land is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..coupler import Coupler, Term
from ..factors import Factor, Ints, factor_of
from ..replay import collapses, replay, slice_parameters
from .registry import rule

if TYPE_CHECKING:
    import onnx_ir as ir

NOTHING = -1
"""Stands in label tensors where no input lands."""


@rule("DepthToSpace Expand Flatten Gather Pad Reshape Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze")
def movement(coupler: Coupler, node: ir.Node) -> None:
    """Run the operator on the labels of each factor of each input."""
    if not all(coupler.known(value) for value in node.inputs if value is not None):
        for value in node.inputs:
            coupler.seal(value, f"{node.op_type} '{node.name}' has a shape that is not known")
        return
    x = node.inputs[0]
    coupler.settle(x)
    if node.op_type == "Gather":
        _seal_looked_up(coupler, node)
    if node.op_type in ("Pad", "Slice"):
        _seal_computed(coupler, node)
    if node.op_type == "Slice":
        _tie_strides(coupler, node)
    parts: list[list[Factor]] = [[] for _ in node.outputs]
    for factor in coupler.of(x):
        for index, spread in enumerate(moved(coupler, node, factor)):
            made = factor_of(spread)
            if made is not None:
                parts[index].append(made)
            elif spread.size and spread.flat[0] != NOTHING:
                coupler.labels.pin(spread.reshape(-1)[:1], f"{node.op_type} '{node.name}' picks that one out")
    for output, factors in zip(node.outputs, parts, strict=True):
        coupler.give(output, _apart(coupler, node, factors))
    if node.op_type == "Expand":
        _blank_expanded(coupler, node)


def moved(coupler: Coupler, node: ir.Node, factor: Factor) -> list[Ints]:
    """Label tensors of the outputs, as the operator moves those of one factor of its input."""
    shape = coupler.shape(node.inputs[0])
    spread = factor.spread(shape)
    arrays = [spread if collapses(node) else np.broadcast_to(spread, shape)]
    arrays += [_parameter(coupler, node, index) for index in range(1, len(node.inputs))]
    return replay(node, arrays, [coupler.shape(output) for output in node.outputs], fill=NOTHING)


def _parameter(coupler: Coupler, node: ir.Node, index: int) -> Any:
    """Value of a parameter: stored, or zeros where it is computed (the outputs' shapes are known)."""
    value = node.inputs[index]
    if value is None:
        return None
    tensor = coupler.constants.get(str(value.name))
    return tensor.numpy() if tensor is not None else np.zeros(coupler.shape(value), np.int64)


def _seal_looked_up(coupler: Coupler, node: ir.Node) -> None:
    """Rows of an embedding are found by number: the axis that is looked up stays whole."""
    x, indices = node.inputs[0], node.inputs[1]
    if indices is None or indices.name in coupler.constants:
        return
    axis = node.attributes.get_int("axis", 0) % max(1, len(coupler.shape(x)))
    coupler.seal(x, f"{node.op_type} '{node.name}' looks up along it", {axis})


def _seal_computed(coupler: Coupler, node: ir.Node) -> None:
    """Where bounds or amounts are computed, an axis whose length they change stays whole."""
    x, y = node.inputs[0], node.outputs[0]
    if all(value is None or value.name in coupler.constants for value in node.inputs[1:]):
        return
    lengths = enumerate(zip(coupler.shape(x), coupler.shape(y), strict=True))
    changed = {axis for axis, (before, after) in lengths if before != after}
    coupler.seal(x, f"{node.op_type} '{node.name}' has bounds there that are computed", changed)


def _blank_expanded(coupler: Coupler, node: ir.Node) -> None:
    """Along an axis that is expanded all is the same, so that the shape may say another length."""
    x, y = node.inputs[0], node.outputs[0]
    rank = len(coupler.shape(y))
    before = (1,) * (rank - len(coupler.shape(x))) + coupler.shape(x)
    coupler.blank(y, [axis for axis in range(rank) if before[axis] == 1 < coupler.shape(y)[axis]])


def _tie_strides(coupler: Coupler, node: ir.Node) -> None:
    """Of every second (third ...) element the ones between go with it, so that the stride stays right."""
    arrays = [None, *(_parameter(coupler, node, index) for index in range(1, len(node.inputs)))]
    shape = coupler.shape(node.inputs[0])
    _, _, axes, steps = slice_parameters(arrays, len(shape))
    for axis, step in zip(axes, steps, strict=True):
        for factor in coupler.of(node.inputs[0]):
            if step > 1 and axis in factor.axes:
                rows = np.moveaxis(factor.labels, factor.axes.index(axis), -1)
                for start in range(0, rows.shape[-1], step):
                    together = rows[..., start : start + step]
                    coupler.labels.tie(together, together[..., :1])


def _apart(coupler: Coupler, node: ir.Node, factors: list[Factor]) -> list[Factor]:
    """Factors of an output; two that fold into one axis are pinned, as neither can be cut alone."""
    taken: set[int] = set()
    kept = []
    for factor in factors:
        if taken & set(factor.axes):
            for folded in factors:
                why = f"{node.op_type} '{node.name}' folds two of its axes into one"
                coupler.labels.pin(folded.labels[folded.labels >= 0], why)
            continue
        taken |= set(factor.axes)
        kept.append(_filled(coupler, node, factor))
    return kept


def _filled(coupler: Coupler, node: ir.Node, factor: Factor) -> Factor:
    """Give what no input landed on labels of its own."""
    gaps = factor.labels == NOTHING
    if not gaps.any():
        return factor
    labels = factor.labels.copy()
    labels[gaps] = coupler.labels.fresh((int(gaps.sum()),))
    return Factor(factor.axes, labels)


@rule("Concat")
def concat(coupler: Coupler, node: ir.Node) -> None:
    """Along the axis the labels stand one behind the other; along the others they are the same."""
    output = node.outputs[0]
    rank = len(coupler.shape(output))
    axis = node.attributes["axis"].as_int() % max(1, rank)
    values = [value for value in node.inputs if value is not None]
    for value in values:
        if axis in coupler.free(value):
            coupler.adopt(value, (axis,), coupler.labels.fresh((coupler.shape(value)[axis],)))
    behind = _behind(coupler, node, values, axis)
    taken = set(behind.axes) if behind else {axis}
    letters = tuple(None if i in taken else str(i) for i in range(rank))
    others = {str(v.name): [f for f in coupler.of(v) if not taken & set(f.axes)] for v in values}
    with coupler.showing(others):
        coupler.couple(node, [Term(value, letters) for value in values], [Term(output, letters)])
    coupler.give(output, [*coupler.of(output), behind])


def _behind(coupler: Coupler, node: ir.Node, values: list[ir.Value], axis: int) -> Factor | None:
    """The factor over the axis of a Concat; None where no input has one there, or it cannot be cut."""
    why = f"{node.op_type} '{node.name}' joins it with an axis that cannot be cut"
    at = [next((f for f in coupler.of(value) if axis in f.axes), None) for value in values]
    if all(factor is None for factor in at):
        return None
    axes = {axis}.union(*(f.axes for f in at if f is not None))
    order = tuple(sorted(axes))
    parts = []
    for value, factor in zip(values, at, strict=True):
        if factor is not None and factor.axes == order:
            parts.append(factor.labels)
        elif len(order) == 1:
            parts.append(coupler.labels.fresh((coupler.shape(value)[axis],)))
            coupler.labels.pin(parts[-1], why)
        else:
            for other in values:
                coupler.seal(other, why, {axis})
            return None
    return Factor.over(order, np.concatenate(parts, axis=order.index(axis)))
