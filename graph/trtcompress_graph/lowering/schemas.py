"""Whether a node says the same in an older opset, by the schemas of its operator."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import onnx
from onnx import helper

if TYPE_CHECKING:
    from .state import Lowering

_MEANS_NOTHING: Mapping[tuple[str, str], tuple[Any, ...]] = MappingProxyType(
    {
        ("QuantizeLinear", "output_dtype"): (0,),
        ("DequantizeLinear", "output_dtype"): (0,),
        ("Shape", "start"): (0,),
    }
)
"""Values of attributes that an older operator has not, and that ask for what it does."""

_NEW_VALUES: Mapping[tuple[str, str], tuple[int, tuple[bytes, ...]]] = MappingProxyType(
    {
        ("Pad", "mode"): (19, (b"wrap",)),
        ("Resize", "coordinate_transformation_mode"): (19, (b"half_pixel_symmetric",)),
        ("RoiAlign", "coordinate_transformation_mode"): (16, (b"half_pixel",)),
        ("GridSample", "mode"): (20, (b"linear", b"cubic")),
    }
)
"""Values that came to an attribute with an opset; the schemas do not tell."""


def misfit(node: onnx.NodeProto, found: Lowering) -> str:
    """Why the node, as it is, does not say the same in the older opset; empty where it does.

    Attributes that ask for what the older operator does anyway are dropped from it.
    """
    if node.op_type in found.without:
        return "the parser does not have it"
    new = onnx.defs.get_schema(node.op_type, found.version, "")
    try:
        old = onnx.defs.get_schema(node.op_type, found.opset, "")
    except onnx.defs.SchemaError:
        return f"it came with opset {_first(node.op_type)}"
    if old.since_version == new.since_version:
        return ""
    return _attributes(node, old, new, found) or _tensors(node, old, found)


def _first(op_type: str) -> int:
    """The opset that an operator came with."""
    same = (s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == op_type and not s.domain)
    return min(same)


def _attributes(node: onnx.NodeProto, old: Any, new: Any, found: Lowering) -> str:
    kept = []
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        since, values = _NEW_VALUES.get((node.op_type, attribute.name), (0, ()))
        if found.opset < since and value in values:
            return f"{attribute.name} {value.decode()} came with opset {since}"
        if attribute.name in old.attributes:
            kept.append(attribute)
            continue
        default = new.attributes[attribute.name].default_value
        nothing = _MEANS_NOTHING.get((node.op_type, attribute.name), ())
        ones = isinstance(value, list) and attribute.name == "dilations" and set(value) == {1}
        if not (value in nothing or ones or (default.name and value == helper.get_attribute_value(default))):
            return f"the attribute {attribute.name} is newer"
    names = {attribute.name for attribute in node.attribute}
    for name, (since, values) in ((n, v) for (op, n), v in _NEW_VALUES.items() if op == node.op_type):
        if name not in names and name in new.attributes and found.opset < since <= found.version:
            default = new.attributes[name].default_value
            if default.name and helper.get_attribute_value(default) in values:
                return f"its {name} was another one before opset {since}"
    del node.attribute[:]
    node.attribute.extend(kept)
    return ""


def _tensors(node: onnx.NodeProto, old: Any, found: Lowering) -> str:
    """Number and types of inputs and outputs."""
    for names, formal, most, kind in (
        (node.input, old.inputs, old.max_input, "input"),
        (node.output, old.outputs, old.max_output, "output"),
    ):
        given = [name for name in names if name]
        if len(given) > most or any(names[most:]):
            return f"it takes at most {most} {kind}s"
        for index, name in enumerate(names):
            held = found.types.get(name)
            allowed = formal[min(index, len(formal) - 1)].types
            if held and allowed and held not in allowed:
                return f"its {kind} '{name}' is of {held}"
    return ""
