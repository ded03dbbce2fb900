"""Normalization, softmax and reductions.

Statistics over an axis that is cut are those of what is kept. The pruned graph is defined so, and the groups say it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from ..coupler import Coupler, Term
from ..factors import Factor
from .elementwise import letters_from_right
from .registry import rule

if TYPE_CHECKING:
    import onnx_ir as ir


def statistics(coupler: Coupler, node: ir.Node, axes: Collection[int]) -> None:
    """Note which labels a node's statistics run over."""
    held = [f.labels.reshape(-1) for f in coupler.of(node.inputs[0]) if any(axis in f.axes for axis in axes)]
    if held:
        coupler.normalized[str(node.name)] = np.concatenate(held)


@rule("BatchNormalization")
def batch_norm(coupler: Coupler, node: ir.Node) -> None:
    """Channels [N, C, ...] with scale, bias, mean and variance [C]."""
    _per_channel(coupler, node)


@rule("InstanceNormalization")
def instance_norm(coupler: Coupler, node: ir.Node) -> None:
    """Channels [N, C, ...] with scale and bias [C]; statistics over what is behind them."""
    statistics(coupler, node, range(2, len(coupler.shape(node.inputs[0]))))
    _per_channel(coupler, node)


def _per_channel(coupler: Coupler, node: ir.Node) -> None:
    shape = coupler.shape(node.inputs[0])
    letters = ("n", "c", *(f"x{i}" for i in range(len(shape) - 2)))[: len(shape)]
    terms = [Term(node.inputs[0], letters), *(Term(value, ("c",)) for value in node.inputs[1:])]
    coupler.couple(node, terms, [Term(node.outputs[0], letters)])


@rule("LayerNormalization RMSNormalization SimplifiedLayerNormalization")
def layer_norm(coupler: Coupler, node: ir.Node) -> None:
    """Over the last axes, from `axis`; scale and bias are broadcast."""
    x = node.inputs[0]
    rank = len(coupler.shape(x))
    statistics(coupler, node, range(node.attributes.get_int("axis", -1) % rank, rank))
    terms = [Term(value, letters_from_right(coupler, value, rank)) for value in node.inputs]
    outputs = [Term(value, letters_from_right(coupler, value, rank)) for value in node.outputs]
    coupler.couple(node, terms, outputs)


@rule("GroupNormalization")
def group_norm(coupler: Coupler, node: ir.Node) -> None:
    """Channels in groups; all keep the same number. Scale and bias are of channels, in opset 18 of groups."""
    x, groups = node.inputs[0], node.attributes["num_groups"].as_int()
    assert x is not None
    why = f"{node.op_type} '{node.name}' works in groups"
    labels = coupler.along(x, 1, why)
    rows = labels.reshape(groups, -1)
    coupler.labels.grids.append(rows)
    statistics(coupler, node, (1,))
    for value in node.inputs[1:]:
        if value is not None and coupler.shape(value)[0] == labels.size:
            coupler.bind(value, (0,), labels, why)
        else:
            coupler.settle(value)
            coupler.seal(value, why)
    coupler.give(node.outputs[0], [Factor.over((1,), labels)])


@rule("Hardmax LogSoftmax LpNormalization MeanVarianceNormalization Softmax")
def along_axis(coupler: Coupler, node: ir.Node) -> None:
    """Keeps the shape; statistics along `axis` (or `axes`)."""
    rank = len(coupler.shape(node.inputs[0]))
    if node.op_type == "MeanVarianceNormalization":
        axes = [axis % rank for axis in node.attributes.get_ints("axes", [0, 2, 3])]
    else:
        axes = [node.attributes.get_int("axis", -1) % rank]
    statistics(coupler, node, axes)
    coupler.give(node.outputs[0], coupler.of(node.inputs[0]))


@rule(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
def reduce(coupler: Coupler, node: ir.Node) -> None:
    """Axes that are reduced lose their labels; their statistics are of what is kept."""
    x, y = node.inputs[0], node.outputs[0]
    rank = len(coupler.shape(x))
    axes = reduced_axes(coupler, node, rank)
    if axes is None:
        coupler.seal(x, f"{node.op_type} '{node.name}' reduces axes that are computed")
        return
    statistics(coupler, node, axes)
    keep = node.attributes.get_int("keepdims", 1)
    letters = [str(axis) for axis in range(rank)]
    out = [None if axis in axes else letter for axis, letter in enumerate(letters) if keep or axis not in axes]
    coupler.couple(node, [Term(x, tuple(letters))], [Term(y, tuple(out))])


def reduced_axes(coupler: Coupler, node: ir.Node, rank: int) -> set[int] | None:
    """Axes of a reduction, from its attribute or its second input; None where they are computed."""
    given = node.attributes.get_ints("axes", None)
    if given is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        tensor = coupler.constants.get(str(node.inputs[1].name))
        if tensor is None:
            return None
        given = tensor.numpy().reshape(-1).tolist()
    if not given:
        return set() if node.attributes.get_int("noop_with_empty_axes", 0) else set(range(rank))
    return {int(axis) % rank for axis in given}


@rule("ArgMax ArgMin CumSum TopK")
def ordered_axis(coupler: Coupler, node: ir.Node) -> None:
    """Places along an axis have a meaning there, so that axis stays whole."""
    x = node.inputs[0]
    rank = len(coupler.shape(x))
    default = 0 if node.op_type.startswith("Arg") else -1
    axis = node.attributes.get_int("axis", default) % rank
    if node.op_type == "CumSum":
        tensor = coupler.constants.get(str(node.inputs[1].name)) if node.inputs[1] is not None else None
        if tensor is None:
            coupler.seal(x, f"{node.op_type} '{node.name}' has an axis that is computed")
            return
        axis = int(tensor.numpy().reshape(-1)[0]) % rank
    letters = [str(i) for i in range(rank)]
    keep = node.attributes.get_int("keepdims", 1)
    out = [None if i == axis else name for i, name in enumerate(letters) if keep or i != axis]
    coupler.couple(node, [Term(x, tuple(letters))], [Term(y, tuple(out)) for y in node.outputs], whole={letters[axis]})
