"""How numbers are written into a graph for a kind of engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FloatType = Literal["float32", "float16"]
Precision = Literal["int8", "float16", "float32"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """An entry of `encodings.toml`.

    Attributes:
        name: for example `cpu-int8`, `trt-int8`, `trt-fp16`.
        float_type: type of what is not quantized.
        activation: type of quantized activations, or None where nothing is quantized.
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
        product_convs: least number of products a result and least number of output channels from which weights of
            convolutions get zero point -1 instead of 0; empty where none does.
    """

    name: str
    float_type: FloatType
    activation: Literal["u8", "s8"] | None = None
    symmetric: bool = True
    weight_bits: int = 8
    quantized_bias: bool = False
    ops: tuple[str, ...] = ()
    shared_scale_ops: tuple[str, ...] = ()
    quantize_residual_adds: bool = False
    int8_outputs: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    product_convs: tuple[int, ...] = ()

    @property
    def int8(self) -> bool:
        """True where the encoding quantizes at all."""
        return self.activation is not None


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
        """How many nodes run in INT8."""
        return sum(node.precision == "int8" for node in self.nodes)
