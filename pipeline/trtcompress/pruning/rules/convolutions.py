"""Convolutions, pooling and resizing: channels are axis 1, windows stay whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..coupler import Coupler, Term
from ..factors import Factor, Ints
from .registry import rule

if TYPE_CHECKING:
    import onnx_ir as ir


@rule("Conv")
def conv(coupler: Coupler, node: ir.Node) -> None:
    """X [N, C, ...] with W [O, C / groups, ...] and a bias [O] -> [N, O, ...]."""
    groups = node.attributes.get_int("group", 1)
    if groups > 1:
        _grouped(coupler, node, groups, out_axis=0)
        return
    _dense(coupler, node, ("o", "c"))


@rule("ConvTranspose")
def conv_transpose(coupler: Coupler, node: ir.Node) -> None:
    """X [N, C, ...] with W [C, O / groups, ...] and a bias [O] -> [N, O, ...]."""
    groups = node.attributes.get_int("group", 1)
    if groups > 1:
        _grouped(coupler, node, groups, out_axis=1)
        return
    _dense(coupler, node, ("c", "o"))


def _dense(coupler: Coupler, node: ir.Node, weight: tuple[str, str]) -> None:
    x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    spatial = [f"x{i}" for i in range(len(coupler.shape(x)) - 2)]
    window = [f"k{i}" for i in range(len(coupler.shape(w)) - 2)]
    terms = [Term(x, ("n", "c", *spatial)), Term(w, (*weight, *window)), Term(bias, ("o",))]
    coupler.couple(node, terms, [Term(y, ("m", "o", *(f"y{s}" for s in spatial)))], whole={"n", *spatial, *window})


def _grouped(coupler: Coupler, node: ir.Node, groups: int, out_axis: int) -> None:
    """Each group keeps as many channels as any other; or a whole group goes."""
    x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
    assert x is not None
    assert w is not None
    why = f"{node.op_type} '{node.name}' works in groups"
    read = f"{node.op_type} '{node.name}' reads channels in groups that cannot be cut"
    inputs = coupler.along(x, 1, read).reshape(groups, -1)
    each = coupler.shape(y)[1] // groups
    if inputs.shape[1] == 1 and each == 1:
        outputs = inputs
    else:
        outputs = coupler.labels.fresh((groups, each))
        parents = inputs if inputs.shape[1] == 1 else coupler.labels.fresh((groups,))
        if inputs.shape[1] > 1:
            coupler.labels.link(parents, inputs, "groups")
        coupler.labels.link(parents, outputs, "groups")
        coupler.labels.grids += [inputs, outputs]
    if not coupler.is_weight(w):
        coupler.seal(w, why)
        coupler.labels.pin(inputs, f"the weight of {node.op_type} '{node.name}' is computed")
        coupler.labels.pin(outputs, f"the weight of {node.op_type} '{node.name}' is computed")
    else:
        _weight(coupler, w, inputs, outputs, out_axis, why)
    if len(node.inputs) > 2:
        coupler.bind(node.inputs[2], (0,), outputs.reshape(-1), why)
    coupler.give(y, [Factor.over((1,), outputs.reshape(-1))])


def _weight(coupler: Coupler, w: ir.Value, inputs: Ints, outputs: Ints, out_axis: int, why: str) -> None:
    """Rows of one side belong to one group; across lies the other side's channels of that group."""
    rows, across = (outputs, inputs) if out_axis == 0 else (inputs, outputs)
    coupler.bind(w, (0,), rows.reshape(-1), why)
    if across.shape[1] > 1:
        coupler.overlay(w, (0, 1), across.repeat(rows.shape[1], axis=0))


@rule("AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool")
def pool(coupler: Coupler, node: ir.Node) -> None:
    """Each channel alone. Indices of a MaxPool count through all channels, so they pin."""
    x = node.inputs[0]
    rank = len(coupler.shape(x))
    if len(node.outputs) > 1 and node.outputs[1].uses():
        coupler.seal(x, f"{node.op_type} '{node.name}' gives places in the whole tensor")
    spatial = [f"x{i}" for i in range(rank - 2)]
    output = Term(node.outputs[0], ("n", "c", *(f"y{s}" for s in spatial)))
    coupler.couple(node, [Term(x, ("n", "c", *spatial))], [output], whole=spatial)


@rule("Resize Upsample")
def resize(coupler: Coupler, node: ir.Node) -> None:
    """Axes whose length stays are handed on."""
    x, y = node.inputs[0], node.outputs[0]
    before, after = coupler.shape(x), coupler.shape(y)
    changed = {axis for axis, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
    names = [f"{axis}" for axis in range(len(before))]
    out = tuple(None if axis in changed else name for axis, name in enumerate(names))
    coupler.couple(node, [Term(x, tuple(names))], [Term(y, out)], whole={names[axis] for axis in changed})
