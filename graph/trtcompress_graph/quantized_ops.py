"""Operators on quantized numbers: ONNX's, and ONNX Runtime's own."""

from __future__ import annotations

_PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})

_INTEGER = frozenset(
    {
        "DynamicQuantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "ConvInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QAttention",
    }
)
_INTEGER_FAMILIES = ("QLinear", "QOrdered", "QEmbed")
"""How the names of further such operators of ONNX Runtime begin."""

_WEIGHTS = frozenset({"MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "QMoE"})
"""Operators that read integer weights and compute in float."""


def is_quantized(op_type: str) -> bool:
    """Whether an operator reads or makes quantized numbers."""
    return op_type in _PAIR or op_type in _WEIGHTS or is_integer(op_type)


def is_integer(op_type: str) -> bool:
    """Whether an operator computes in integers, or rounds activations to them for one that does."""
    return op_type in _INTEGER or op_type.startswith(_INTEGER_FAMILIES)


def quantizes_activations(op_type: str) -> bool:
    """Whether an operator says that activations are quantized; a DequantizeLinear may stand behind weights alone."""
    return op_type == "QuantizeLinear" or is_integer(op_type)
