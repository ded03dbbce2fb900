"""How numbers are written into a graph for a kind of engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FloatType = Literal["float32", "float16", "bfloat16"]
Precision = Literal["int8", "float8", "weight-int8", "weight-int4", "float16", "bfloat16", "float32"]
QUANTIZED: frozenset[Precision] = frozenset(("int8", "float8", "weight-int8", "weight-int4"))
"""Precisions of nodes that multiply what was quantized, or read it from a table."""

Writer = Literal["qdq", "nbits", "block-dq", "tables"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """An entry of `encodings.toml`.

    Attributes:
        name: for example `cpu-int8`, `trt-int8`, `trt-fp16`.
        float_type: type of what is not quantized.
        activation: type of quantized activations (`f8` is FP8 E4M3), or None where none are.
        writer: how integers are written: `qdq` as Q/DQ pairs; weights alone as `nbits` (MatMulNBits of ONNX Runtime)
            or `block-dq` (a DequantizeLinear with a scale a block); `tables` embedding tables alone.
        tables: how embedding tables are quantized, a scale a row: `rows` (the rows that are looked up are dequantized)
            or `whole` (TensorRT, which folds that), or not at all.
        block: weights in a row that share a scale; 0 is all of them.
        accuracy_level: of MatMulNBits: 1 computes in float, 4 rounds what is read to INT8.
        compute_capability: least one that takes it.
        symmetric: zero point in the middle (0 for s8, 128 for u8).
        weight_bits: bits that weights use; 7 keeps 16-bit sums of CPU kernels without VNNI from saturating
            (depthwise convolutions keep 8: their kernels add in 32 bits).
        quantized_bias: write biases as int32 with the scale of their sum (TensorRT refuses it).
        ops: operator kinds that have INT8 kernels.
        shared_scale_ops: kinds whose inputs and output share one scale (concat, pooling, data movement).
        quantize_residual_adds: put Q/DQ on the other branch of an Add that a convolution can absorb.
        int8_outputs: kinds whose kernels also write INT8, so that Q/DQ stands on their output; empty where it stands
            on inputs only.
        folded: activations that such a kernel absorbs into the range of its output.
        slower: kinds whose INT8 kernels are slower than float, which run in INT8 only where an engine does so unasked:
            with INT8 on both sides.
        activation_products: whether a MatMul of two activations pays.
        group_channels: least number of channels a group from which a grouped convolution pays; depthwise ones do.
        product_weights: least number of weights from which a matrix product pays whose input is not INT8 anyway.
        lstm_weights: least number of weights from which an LSTM with integer weights pays, which reads floats and
            rounds them itself; 0 where there is none.
        product_convs: least number of products a result and least number of output channels from which weights of
            convolutions get zero point -1 instead of 0; empty where none does.
    """

    name: str
    float_type: FloatType
    activation: Literal["u8", "s8", "f8"] | None = None
    symmetric: bool = True
    weight_bits: int = 8
    quantized_bias: bool = False
    ops: tuple[str, ...] = ()
    shared_scale_ops: tuple[str, ...] = ()
    quantize_residual_adds: bool = False
    int8_outputs: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    slower: tuple[str, ...] = ()
    activation_products: bool = False
    group_channels: int = 0
    product_weights: int = 0
    lstm_weights: int = 0
    product_convs: tuple[int, ...] = ()
    writer: Writer = "qdq"
    tables: Literal["", "rows", "whole"] = ""
    block: int = 0
    accuracy_level: int = 1
    compute_capability: tuple[int, int] = (0, 0)

    @property
    def int8(self) -> bool:
        """True where activations are INT8."""
        return self.activation in ("u8", "s8")

    @property
    def calibrated(self) -> bool:
        """True where it takes ranges of activations: to scale them, or to know what FP16 would overflow."""
        return self.activation is not None or self.float_type == "float16"

    @property
    def integers(self) -> bool:
        """True where weights alone, or tables, are integers."""
        return self.writer != "qdq"

    @property
    def quantized(self) -> Precision:
        """Precision of the nodes that it quantizes."""
        if self.integers:
            return "weight-int4" if self.weight_bits == 4 else "weight-int8"
        return "float8" if self.activation == "f8" else "int8"


@dataclass(frozen=True, slots=True)
class NodePrecision:
    """What one node runs in, and why when it is not what the encoding prefers."""

    node: str
    op: str
    precision: Precision
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """Precision of every node of a graph under one encoding.

    Attributes:
        note: what is to be told of the plan as a whole; empty where it is what the encoding prefers.
    """

    encoding: str
    nodes: tuple[NodePrecision, ...]
    note: str = ""

    @property
    def quantized(self) -> int:
        """How many nodes read what is quantized."""
        return sum(node.precision in QUANTIZED for node in self.nodes)
