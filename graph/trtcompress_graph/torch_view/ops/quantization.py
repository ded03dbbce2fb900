"""Quantization: pairs of Quantize and Dequantize, and integer weights, become fake quantization that can be trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from ..attributes import place
from ..builder import Builder
from ..quantized import dequantize, fake_float8, fake_quantize, learned_scale, quantize, quantize_float8
from ..registry import op
from ..state import Grid
from ..tensors import known_type, torch_type
from ..tied import bias_scale
from ..values import Traced
from ..weights import learned, master
from .convolution import conv


@dataclass(frozen=True, slots=True)
class Cells:
    """Which numbers share a scale, and the range of the integers.

    Attributes:
        fewer: bits of the type that are left unused.
    """

    axis: int
    block: int
    kind: ir.DataType
    fewer: int = 0

    @property
    def bits(self) -> int:
        """Bits that the integers use."""
        return self.kind.bitwidth - self.fewer

    @property
    def low(self) -> int:
        """The least integer."""
        return -(1 << (self.bits - 1)) if self.kind.name.startswith("INT") else 0

    @property
    def high(self) -> int:
        """The greatest integer."""
        return self.low + (1 << self.bits) - 1

    @property
    def floating(self) -> bool:
        """Whether what is stored are small floats."""
        return self.kind.is_floating_point()


def _cells(node: ir.Node, kind: ir.DataType | None) -> Cells:
    named = {key: attribute.value for key, attribute in node.attributes.items()}
    return Cells(named.get("axis", 1), named.get("block_size", 0), kind or ir.DataType.UINT8)


def _kind(node: ir.Node) -> ir.DataType:
    """The type that a QuantizeLinear makes."""
    told = node.attributes.get("output_dtype")
    zero = _input(node, 2)
    if zero is not None and zero.dtype is not None:
        return zero.dtype
    return ir.DataType(told.value) if told is not None and told.value else node.outputs[0].dtype or ir.DataType.UINT8


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _tensor(builder: Builder, value: ir.Value | None) -> Any:
    return None if value is None else builder.tensor(builder.value(value))


@op("QuantizeLinear", build=True, differentiable=False)
def quantize_linear(builder: Builder, node: ir.Node) -> Any:
    """Integers; where a DequantizeLinear reads them it does both in one."""
    kind = _kind(node)
    cells = _cells(node, kind)
    x, scale, zero = (_tensor(builder, _input(node, i)) for i in range(3))
    dtype = torch_type(kind, place(node))
    if cells.floating:
        saturate = node.attributes.get("saturate")
        flag = 1 if saturate is None else saturate.value
        return _now_or_later(builder, quantize_float8, x, scale, dtype, cells.axis, cells.block, flag)
    return _now_or_later(builder, quantize, x, scale, zero, cells.low, cells.high, dtype, cells.axis, cells.block)


def _now_or_later(builder: Builder, function: Any, *args: Any) -> Any:
    if any(isinstance(arg, Traced) for arg in args):
        return builder.tracer.call(function, *args)
    return function(*args)


@op("DequantizeLinear", build=True)
def dequantize_linear(builder: Builder, node: ir.Node) -> Any:
    """Numbers out of integers: with the QuantizeLinear before it, or the weight that it reads, fake quantization."""
    given, scale, zero = (_input(node, i) for i in range(3))
    assert given is not None
    assert scale is not None
    source = given.producer()
    if source is not None and source.op_type == "QuantizeLinear" and _same_grid(source, node):
        x = source.inputs[0]
        assert x is not None
        return _fake(builder, _tensor(builder, x), scale, zero, _cells(node, _kind(source)), weight=x.is_initializer())
    cells = _cells(node, given.dtype)
    if not cells.floating and learned(builder.state, given, scale, zero):
        cells = replace(cells, fewer=_unused_bits(given, cells))
        grid = Grid(str(scale.name), "" if zero is None else str(zero.name), cells.axis, cells.block, cells.bits)
        x = master(builder, given, scale, zero, grid)
        return _fake(builder, x, scale, zero, cells, weight=True)
    out = node.attributes.get("output_dtype")
    kind = torch_type(ir.DataType(out.value)) if out is not None and out.value else None
    args = (_tensor(builder, given), _tensor(builder, scale), _tensor(builder, zero))
    return _now_or_later(builder, dequantize, *args, cells.axis, cells.block, kind)


def _unused_bits(given: ir.Value, cells: Cells) -> int:
    """1 where 8-bit weights are kept within 7 bits, as CPUs without VNNI need them: their sums of pairs saturate.

    A weight of 8 bits reaches the end of its range in each of its channels, unless its scale was held back.
    """
    assert given.const_value is not None
    if cells.kind is not ir.DataType.INT8:
        return 0
    integers = given.const_value.numpy()
    narrow = integers.size > 0 and integers.min() >= -64 and integers.max() <= 63 and integers.any()
    return int(narrow)


def _same_grid(quantizer: ir.Node, node: ir.Node) -> bool:
    """Whether both use the same scale, zero point and axis."""
    alike = all(_equal(_input(quantizer, i), _input(node, i)) for i in (1, 2))
    settings = [
        {key: node.attributes[key].value for key in _GRID if key in node.attributes} for node in (quantizer, node)
    ]
    return alike and settings[0] == settings[1] and known_type(_kind(quantizer)) is not None


_GRID = ("axis", "block_size")


def _equal(one: ir.Value | None, other: ir.Value | None) -> bool:
    if one is other:
        return True
    if one is None or other is None or one.const_value is None or other.const_value is None:
        return False
    return one.dtype == other.dtype and one.const_value.tobytes() == other.const_value.tobytes()


def _fake(builder: Builder, x: Any, scale: ir.Value, zero: ir.Value | None, cells: Cells, *, weight: bool) -> Any:
    """The call of fake quantization."""
    factors = builder.state.products.get(str(scale.name))
    if factors is not None:
        factor = builder.tracer.call(bias_scale, *(_tensor(builder, value) for value in factors))
    else:
        factor = _tensor(builder, scale)
        if builder.state.options.learn_scales and isinstance(factor, Traced):
            factor = builder.tracer.call(learned_scale, factor, x, cells.high, weight)
    if cells.floating:
        kind = torch_type(cells.kind)
        return _now_or_later(builder, fake_float8, x, factor, kind, cells.axis, cells.block)
    shift = 0 if zero is None else _tensor(builder, zero)
    if isinstance(shift, Tensor) and shift.numel() == 1:
        shift = int(shift)
    return _now_or_later(builder, fake_quantize, x, factor, shift, cells.low, cells.high, cells.axis, cells.block)


@op("DynamicQuantizeLinear", differentiable=False)
def dynamic_quantize(x: Tensor, /, *, outputs: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 by the range of x itself, with its scale and zero point."""
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, 1.0, scale)
    zero = torch.round(torch.clamp(-low / scale, 0, 255)).to(torch.uint8)
    return quantize(x, scale, zero, 0, 255, torch.uint8), scale, zero


@op("QLinearMatMul", differentiable=False)
def quantized_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    scale: Tensor,
    zero: Tensor,
    /,
) -> Tensor:
    """Products of quantized matrices."""
    left = dequantize(a, a_scale, a_zero, axis=-2, dtype=torch.float64)
    right = dequantize(b, b_scale, b_zero, axis=-1, dtype=torch.float64)
    limits = torch.iinfo(zero.dtype)
    return quantize(torch.matmul(left, right), scale, zero, limits.min, limits.max, zero.dtype)


@op("QLinearConv", differentiable=False)
def quantized_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    scale: Tensor,
    zero: Tensor,
    bias: Tensor | None = None,
    /,
    **named: Any,
) -> Tensor:
    """Convolution of quantized tensors."""
    real = dequantize(x, x_scale, x_zero, dtype=torch.float64)
    weight = dequantize(w, w_scale, w_zero, axis=0, dtype=torch.float64)
    shift = None if bias is None else bias.double() * x_scale.double() * w_scale.double()
    limits = torch.iinfo(zero.dtype)
    return quantize(conv(real, weight, shift, **named), scale, zero, limits.min, limits.max, zero.dtype)
