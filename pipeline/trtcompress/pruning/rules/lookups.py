"""Looking elements up and writing them: the axes that are counted along stay whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..coupler import Coupler, Term
from .registry import rule

if TYPE_CHECKING:
    import onnx_ir as ir


@rule("GatherND")
def gather_nd(coupler: Coupler, node: ir.Node) -> None:
    """Axes behind those that the indices count along are handed on."""
    data, indices, y = node.inputs[0], node.inputs[1], node.outputs[0]
    counted = node.attributes.get_int("batch_dims", 0) + coupler.shape(indices)[-1]
    behind = [f"d{axis}" for axis in range(counted, len(coupler.shape(data)))]
    front = [f"i{axis}" for axis in range(counted)]
    out = [None] * (len(coupler.shape(y)) - len(behind))
    coupler.couple(node, [Term(data, (*front, *behind))], [Term(y, (*out, *behind))], whole=front)


@rule("ScatterND")
def scatter_nd(coupler: Coupler, node: ir.Node) -> None:
    """Data and updates have the same axes behind those that the indices count along."""
    data, indices, updates = node.inputs[0], node.inputs[1], node.inputs[2]
    counted = coupler.shape(indices)[-1]
    behind = [f"d{axis}" for axis in range(counted, len(coupler.shape(data)))]
    front = [f"i{axis}" for axis in range(counted)]
    written = [f"u{axis}" for axis in range(len(coupler.shape(updates)) - len(behind))]
    terms = [Term(data, (*front, *behind)), Term(updates, (*written, *behind))]
    coupler.couple(node, terms, [Term(node.outputs[0], (*front, *behind))], whole={*front, *written})
