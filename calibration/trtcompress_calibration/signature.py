"""Where an operator takes float16 or bfloat16: read from its ONNX definition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import onnx
import onnx_ir as ir

Slot = Literal["follows", "float32", "other"]
"""`follows`: float32 and the half type alike; `float32`: only that, by definition; `other`: no float tensor."""

Half = Literal["float16", "bfloat16"]

_FLOAT = "tensor(float)"


@dataclass(frozen=True, slots=True)
class Signature:
    """Kind of each input and output; the last formal one repeats."""

    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]

    def input(self, index: int) -> Slot:
        """Kind of the input at `index`."""
        return self.inputs[min(index, len(self.inputs) - 1)]

    def output(self, index: int) -> Slot:
        """Kind of the output at `index`."""
        return self.outputs[min(index, len(self.outputs) - 1)]


def signature(node: ir.Node, opset: int, half: Half = "float16") -> Signature | None:
    """The signature of the node's operator, or None where nothing is known of it."""
    return _signature(node.op_type, node.domain, opset, half)


def takes_half(node: ir.Node, opset: int, half: Half = "float16") -> bool:
    """True where each float tensor that the node reads or writes may be a half, but for those that never are."""
    known = signature(node, opset, half)
    if known is None:
        return False
    return any(known.input(i) == "follows" for i, v in enumerate(node.inputs) if _is_float(v)) or any(
        known.output(i) == "follows" for i, v in enumerate(node.outputs) if _is_float(v)
    )


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


@cache
def _signature(op_type: str, domain: str, opset: int, half: Half) -> Signature | None:
    try:
        schema = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}

    def slot(type_str: str) -> Slot:
        types = allowed.get(type_str, {type_str})
        if _FLOAT not in types:
            return "other"
        return "follows" if f"tensor({half})" in types else "float32"

    return Signature(tuple(slot(p.type_str) for p in schema.inputs), tuple(slot(p.type_str) for p in schema.outputs))
