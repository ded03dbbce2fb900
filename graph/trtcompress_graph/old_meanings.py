"""What operators meant in older opsets, where ONNX's version converter gives them the meaning of newer ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .fresh import FreshNames

if TYPE_CHECKING:
    import onnx_ir as ir


def keep_meanings(model: ir.Model, opset: int) -> None:
    """Say what older operators left unsaid, as ONNX Runtime computes them.

    Resize before opset 11, and Upsample, have no half pixels. Hardmax before opset 13 looks at all axes from its own on
    as one.

    Args:
        model: what the converter made; it is changed.
        opset: what it was made from.
    """
    for part in model.graphs():
        names = FreshNames(model.graph)
        for node in list(part):
            if node.domain not in ("", "ai.onnx"):
                continue
            if node.op_type == "Resize" and opset < 11:
                _without_half_pixels(node)
            elif node.op_type == "Hardmax" and opset < 13:
                _flattened(part, node, names)


def _without_half_pixels(node: ir.Node) -> None:
    """Nearest is the one before, or where images shrink the one behind."""
    import onnx_ir as ir

    scales = node.inputs[2]
    held = None if scales is None else ir.convenience.get_const_tensor(scales)
    shrinks = held is not None and held.size and held.numpy().max() <= 1
    node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
    node.attributes.add(ir.AttrString("nearest_mode", "ceil" if shrinks else "floor"))


def _flattened(graph: ir.Graph, node: ir.Node, names: FreshNames) -> None:
    """The axes from the node's own on made one, and taken apart again behind it."""
    import onnx_ir as ir

    x, axis = node.inputs[0], node.attributes.get_int("axis", 1)
    if x is None or axis == -1 or (x.shape is not None and axis == len(x.shape) - 1):
        node.attributes.add(ir.AttrInt64("axis", -1))
        return
    stem = str(node.outputs[0].name)
    lengths = ir.node("Shape", [x])
    flat = ir.node("Flatten", [x], {"axis": axis})
    hard = ir.node("Hardmax", flat.outputs, {"axis": -1}, name=node.name)
    whole = ir.node("Reshape", [hard.outputs[0], lengths.outputs[0]])
    for made, ending in ((lengths, "shape"), (flat, "flat"), (hard, "hard")):
        made.outputs[0].name = names.tensor(f"{stem}.{ending}")
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [lengths, flat, hard, whole], node.outputs, whole.outputs
    )
