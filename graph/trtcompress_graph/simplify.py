"""Bring a model into the plain form that every later part reads; what it computes stays the same."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .branches import settle_branches, tell_apart
from .convolutions import fold_affine
from .fixing import fix_inputs_ir
from .load import load_ir, save_ir
from .model import Model
from .naming import name_nodes, name_unnamed_axes
from .opset import upgrade
from .recurrent import drop_zero_states
from .rewrites import rewrite
from .shapes import infer

if TYPE_CHECKING:
    import onnx_ir as ir

_INPUT_LIMIT = 1 << 25
"""Constants of more elements than this are not computed with."""

_OUTPUT_LIMIT = 1 << 16
"""A folded constant may have this many elements more than the constants that it replaces."""


_SHAPE_LIMIT = 64
"""Integers that are made by filling a shape (pads, steps) are folded up to this many."""


_ROUNDS = 5
"""Known shapes let more be folded, which makes more shapes known; real models are done after two or three."""


def simplify(model: Model, out: Path, fix: Mapping[str, object] = MappingProxyType({})) -> Model:
    """Write the model in opset 20 or newer: constants folded, dead and doubled nodes gone, shapes filled in.

    Batch norm, Mul and Add behind a convolution go into its weights. An `If` with a constant condition, or of which
    one branch alone fits what reads it, becomes the branch that is taken. Recurrent layers lose initial states that
    are zero, initializers are no inputs any more, and each node has a name of its own. Tensors and initializers that
    are still there have the names that they had.
    Equal models give equal bytes.

    Args:
        model: what `read_model` returned.
        out: the file to write.
        fix: values of inputs that are always the same; these inputs become constants.

    Raises:
        ModelError: it cannot be brought to opset 20, or what is fixed does not fit.
    """
    graph = load_ir(model)
    fix_inputs_ir(graph, model, fix)
    return save_ir(simplify_ir(graph, str(model.path)), out)


def simplify_ir(graph: ir.Model, where: str) -> ir.Model:
    """The same in memory; `graph` is used up."""
    import onnx_ir.passes.common as common

    declared = [value.shape for value in graph.graph.outputs]
    if graph.functions:
        common.InlinePass()(graph)
    common.RemoveInitializersFromInputsPass()(graph)
    name_unnamed_axes(graph)
    graph = upgrade(graph, where)
    name_nodes(graph)
    tell_apart(graph)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    _fold_constants(graph)
    while settle_branches(graph):
        _fold_constants(graph)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    fold_affine(graph)
    drop_zero_states(graph)
    _share_small_constants(graph)
    common.CommonSubexpressionEliminationPass()(graph)
    common.RemoveUnusedNodesPass()(graph)
    _drop_unused_initializers(graph)
    common.RemoveUnusedOpsetsPass()(graph)
    name_nodes(graph)
    for value, shape in zip(graph.graph.outputs, declared, strict=True):
        value.shape = shape if shape is not None else value.shape  # with the names of axes that it came with
    infer(graph)
    return graph


def _fold_constants(graph: ir.Model) -> None:
    """Compute what depends on constants alone and shorten what is left, until nothing changes."""
    import onnx_ir.passes.common as common
    from onnxscript.optimizer._constant_folding import FOLDED_FROM_KEY, FoldConstantsPass

    _name_transposed(graph)
    for _ in range(_ROUNDS):
        infer(graph)
        folding = FoldConstantsPass(
            shape_inference=True,
            input_size_limit=_INPUT_LIMIT,
            output_size_limit=_OUTPUT_LIMIT,
            should_fold=_should_fold,
        )
        folded = folding(graph).modified
        rewritten = rewrite(graph)
        common.RemoveUnusedNodesPass()(graph)
        if not folded and not rewritten:
            break
    for part in graph.graphs():
        for node in part:
            for value in node.outputs:
                value.metadata_props.pop(FOLDED_FROM_KEY, None)
        for value in part.initializers.values():
            value.metadata_props.pop(FOLDED_FROM_KEY, None)


def _should_fold(node: ir.Node) -> bool | None:
    """True for small integers that fill a shape, as pads are made; None for the usual rules."""
    import onnx_ir as ir

    shape = node.inputs[0].const_value if node.op_type == "ConstantOfShape" and node.inputs[0] is not None else None
    filled = node.attributes.get("value")
    if shape is None or filled is None or filled.type != ir.AttributeType.TENSOR:
        return None
    return True if filled.as_tensor().dtype.is_integer() and prod(shape.numpy()) <= _SHAPE_LIMIT else None


def _drop_unused_initializers(graph: ir.Model) -> None:
    """Drop what no node reads; a branch that was folded away still counts as a use where it is only asked for uses."""
    used = {value for node in graph.graph.all_nodes() for value in node.inputs}
    for part in graph.graphs():
        for name, value in list(part.initializers.items()):
            if value not in used and not value.is_graph_output():
                part.initializers.pop(name)


def _name_transposed(graph: ir.Model) -> None:
    """A weight that is transposed before its use folds into an initializer called `<weight>.T`.

    Where a weight is transposed twice (tied weights, or other axes), the later ones are `<weight>.T_1` and so on.
    """
    from .fresh import FreshNames

    names = FreshNames(graph.graph)
    for node in graph.graph:
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or not source.is_initializer() or node.outputs[0].is_graph_output():
            continue
        name = f"{source.name}.T"
        if node.outputs[0].name != name:
            node.outputs[0].name = names.tensor(name)


def _share_small_constants(graph: ir.Model) -> None:
    """One initializer for each distinct integer or single number. Weights stay apart: layers must not share them."""
    for part in graph.graphs():
        first: dict[tuple[object, ...], ir.Value] = {}
        for value in list(part.initializers.values()):
            tensor = value.const_value
            if tensor is None or value.is_graph_output() or tensor.dtype.is_string():
                continue
            if tensor.size > 64 or (tensor.size > 1 and tensor.dtype.is_floating_point()):
                continue
            key = (tensor.dtype, tuple(tensor.shape), tensor.tobytes())
            kept = first.setdefault(key, value)
            if kept is not value:
                value.replace_all_uses_with(kept)
                part.initializers.pop(str(value.name))
