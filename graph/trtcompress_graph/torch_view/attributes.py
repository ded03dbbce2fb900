"""Attributes of a node as Python values."""

from __future__ import annotations

from keyword import iskeyword
from typing import Any

import onnx_ir as ir

from ..errors import OperatorError
from .registry import Entry
from .tensors import to_tensor

_TUPLES = (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS)
_PLAIN = (ir.AttributeType.INT, ir.AttributeType.FLOAT, ir.AttributeType.STRING)


def attributes(node: ir.Node, entry: Entry) -> dict[str, Any]:
    """The attributes of a node by name.

    Raises:
        OperatorError: the operator is registered, but not with one of them.
    """
    found = {name: value(attribute, node) for name, attribute in node.attributes.items()}
    unknown = sorted(name for name in found if not _takes(entry, name))
    if unknown:
        raise OperatorError(
            f"the torch view has {node.op_type}, but not with '{unknown[0]}'",
            where=place(node),
            hint="simplify the model, export it at another opset, or register the operator anew (see the README)",
        )
    return found


def _takes(entry: Entry, name: str) -> bool:
    """Whether an operator has an attribute. Names go into the code that torch.fx writes, so they must be names."""
    return name.isidentifier() and not iskeyword(name) if entry.attributes is None else name in entry.attributes


def value(attribute: ir.Attr, node: ir.Node) -> Any:
    """One attribute: a number, a text, a tuple of them, or a tensor."""
    if attribute.type in _TUPLES:
        return tuple(attribute.value)
    if attribute.type in _PLAIN:
        return attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        held = attribute.as_tensor()
        return to_tensor(held.numpy(), held.dtype, place(node))
    raise OperatorError(
        f"the torch view cannot read the attribute '{attribute.name}' of {node.op_type}",
        where=place(node),
        hint="simplify the model, or export it at another opset",
    )


def place(node: ir.Node) -> str:
    """Words for where a node stands."""
    return f"node '{node.name}' ({node.op_type})"


def missing(node: ir.Node, opset: int | None) -> OperatorError:
    """The error for an operator that is not registered."""
    domain = node.domain or "ai.onnx"
    return OperatorError(
        f"the torch view does not have {node.op_type} of the domain '{domain}', opset {opset or 'unknown'}",
        where=place(node),
        hint="run trtcompress simplify on the model, export it at another opset, or register the operator: "
        f'@trtcompress_graph.torch_view.op("{node.op_type}"'
        + (f', domain="{domain}")' if node.domain not in ("", "ai.onnx") else ")"),
    )
