"""Which operators work on quantized numbers."""

from __future__ import annotations

import pytest

from trtcompress_graph.quantized_ops import is_integer, is_quantized, quantizes_activations


@pytest.mark.parametrize(
    ("kind", "integer", "activations"),
    [
        ("QuantizeLinear", False, True),
        ("DequantizeLinear", False, False),
        ("MatMulNBits", False, False),
        ("GatherBlockQuantized", False, False),
        ("QLinearConv", True, True),
        ("QLinearAveragePool", True, True),
        ("QGemm", True, True),
        ("DynamicQuantizeLSTM", True, True),
        ("MatMulIntegerToFloat", True, True),
        ("QOrderedMatMul", True, True),
        ("QEmbedLayerNormalization", True, True),
    ],
)
def test_what_works_on_quantized_numbers(kind: str, integer: bool, activations: bool) -> None:
    assert is_quantized(kind)
    assert (is_integer(kind), quantizes_activations(kind)) == (integer, activations)


@pytest.mark.parametrize("kind", ["Conv", "MatMul", "LSTM", "Gather", "Add"])
def test_what_works_on_floats(kind: str) -> None:
    assert not is_quantized(kind)
    assert not quantizes_activations(kind)
