"""Bring a model to the opset that every part here is written for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ModelError
from .old_meanings import keep_meanings
from .skeleton import large_initializers, skeleton

if TYPE_CHECKING:
    import onnx_ir as ir

OPSET = 20
"""What the PyTorch exporter writes; older models are brought up to it, newer ones stay."""

IR_VERSION = 10


def upgrade(model: ir.Model, where: str) -> ir.Model:
    """The model in opset 20 or, if it is newer, as it is. Names stay; weights are not touched.

    Args:
        model: is used up: its weights move into the result.
        where: the file, for messages.

    Raises:
        ModelError: there is no way up for one of its operators.
    """
    import onnx
    import onnx_ir as ir

    version = model.opset_imports.get("", OPSET)
    model.ir_version = max(model.ir_version or 0, IR_VERSION)
    if version >= OPSET:
        return model
    try:
        converted = onnx.version_converter.convert_version(skeleton(model), OPSET)
    except RuntimeError as error:
        raise ModelError(
            f"cannot be brought from opset {version} to {OPSET}: {str(error).strip().splitlines()[0]}",
            where=where,
            hint=f"export it again with opset {OPSET}",
        ) from error
    result = ir.from_proto(converted)
    result.ir_version = model.ir_version
    _give_weights(result, model)
    keep_meanings(result, version)
    return result


def _give_weights(result: ir.Model, model: ir.Model) -> None:
    """Make initializers again of the inputs that stand for the weights of `model`."""
    weights = large_initializers(model)
    declared = {value.name for value in model.graph.inputs}
    for value in list(result.graph.inputs):
        if value.name in weights:
            value.const_value = weights[value.name].const_value
            result.graph.register_initializer(value)
    kept = [value for value in result.graph.inputs if value.name not in weights or value.name in declared]
    result.graph.inputs.clear()
    result.graph.inputs.extend(kept)
