"""Integer weights and tables written into a graph."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.fresh import FreshNames

from .blocks import Blocks, packed, quantize_blocks
from .choose import block_of, is_lookup, lengths, outputs_by_features

MICROSOFT = "com.microsoft"


def write_weights(loaded: ir.Model, encoding: Encoding, chosen: Collection[ir.Node]) -> None:
    """Have the chosen nodes read integers, in place; a weight `w` becomes `w_quantized`, `w_scale` and its zero points.

    Tensors and nodes keep their names; floats that nobody reads any more are dropped.

    Args:
        loaded: the graph.
        encoding: one whose writer is not `qdq`.
        chosen: by `choose.choose_weights`.
    """
    writer = _Writer(loaded.graph, encoding)
    products: Callable[[ir.Node], None] = writer.nbits if encoding.writer == "nbits" else writer.block_dq
    lookups = writer.rows if encoding.tables == "rows" else writer.whole
    for node in [node for node in loaded.graph if node in chosen]:
        lookups(node) if is_lookup(node) else products(node)
    if any(node.domain == MICROSOFT for node in loaded.graph):
        loaded.graph.opset_imports[MICROSOFT] = 1
    for name, value in [*loaded.graph.initializers.items()]:
        if not value.uses() and not value.is_graph_output():
            del loaded.graph.initializers[name]


class _Writer:
    def __init__(self, graph: ir.Graph, encoding: Encoding) -> None:
        self._graph = graph
        self._encoding = encoding
        self._names = FreshNames(graph)
        self._made: dict[tuple[object, ...], tuple[ir.Value, ...]] = {}

    def nbits(self, node: ir.Node) -> None:
        """A product as MatMulNBits; the bias of a Gemm goes into an Add behind it."""
        weight, read = node.inputs[1], node.inputs[0]
        assert weight is not None
        turned, block = outputs_by_features(node), block_of(weight, node, self._encoding)
        outputs, features = lengths(weight) if turned else lengths(weight)[::-1]
        attributes = {
            "K": features,
            "N": outputs,
            "bits": self._encoding.weight_bits,
            "block_size": block,
            "accuracy_level": self._encoding.accuracy_level,
        }
        held = self._once(("nbits", weight, turned), lambda: self._packed(weight, turned, block))
        product = ir.node("MatMulNBits", [read, *held], attributes, domain=MICROSOFT, name=node.name)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        self._replace(node, product, bias)

    def block_dq(self, node: ir.Node) -> None:
        """A product that reads its weight through DequantizeLinear."""
        weight = node.inputs[1]
        assert weight is not None
        turned, block = outputs_by_features(node), block_of(weight, node, self._encoding)
        (restored,) = self._once(("dq", weight, turned), lambda: (self._restored(weight, turned, block),))
        node.replace_input_with(1, restored)

    def whole(self, node: ir.Node) -> None:
        """A lookup in a table that is read through DequantizeLinear, a scale a row."""
        table = node.inputs[0]
        assert table is not None
        (restored,) = self._once(("dq", table, True), lambda: (self._restored(table, True, 0, bits=8),))
        node.replace_input_with(0, restored)

    def rows(self, node: ir.Node) -> None:
        """Integers, scale and zero point of the rows that are looked up, then DequantizeLinear of these rows alone."""
        table, places = node.inputs[0], node.inputs[1]
        assert table is not None
        parts = self._once(("rows", table), lambda: self._row_parts(table))
        looked = []
        for part in parts:
            gather = ir.node("Gather", [part, places], {"axis": 0}, name=self._names.node(f"{node.name}_{part.name}"))
            gather.outputs[0].name = self._names.tensor(f"{node.outputs[0].name}_{part.name}")
            gather.outputs[0].type = ir.TensorType(part.dtype or ir.DataType.UINT8)
            self._graph.insert_before(node, [gather])
            looked.append(gather.outputs[0])
        attributes = {"axis": -1, "block_size": lengths(table)[1]}
        self._replace(node, ir.node("DequantizeLinear", looked, attributes, name=node.name))

    def _packed(self, weight: ir.Value, rows: bool, block: int) -> tuple[ir.Value, ...]:
        made, name = self._quantized(weight, rows, block), weight.name
        full = np.pad(made.codes, ((0, 0), (0, -made.codes.shape[1] % made.block)))
        codes = packed(full.reshape(len(full), -1, made.block), made.bits)
        parts = [self._constant(f"{name}_quantized", codes), self._constant(f"{name}_scale", made.scale)]
        if not self._encoding.symmetric:
            parts.append(self._constant(f"{name}_zero_point", packed(made.zero_point, made.bits)))
        return tuple(parts)

    def _restored(self, weight: ir.Value, rows: bool, block: int, bits: int | None = None) -> ir.Value:
        """DequantizeLinear of a matrix whose scales run over its rows, or over its columns; symmetric."""
        made, name = self._quantized(weight, rows, block, bits), weight.name or ""
        turned = (lambda matrix: matrix) if rows else np.transpose
        values = self._constant(f"{name}_quantized", turned(made.signed), 4 if made.bits == 4 else 8)
        scale = turned(made.scale) if block else made.scale[:, 0]
        inputs = [values, self._constant(f"{name}_scale", np.ascontiguousarray(scale))]
        axis = (1 if rows else 0) if block else (0 if rows else 1)
        attributes = {"axis": axis, **({"block_size": block} if block else {})}
        node = ir.node("DequantizeLinear", inputs, attributes, name=self._names.node(f"{name}_DequantizeLinear"))
        result = node.outputs[0]
        result.name = self._names.tensor(f"{name}_dequantized")
        result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), weight.shape
        self._graph.insert_before(self._graph[0], [node])
        return result

    def _row_parts(self, table: ir.Value) -> tuple[ir.Value, ...]:
        made, name = self._quantized(table, True, 0, bits=8), table.name
        codes: npt.NDArray[np.generic] = made.signed if self._encoding.symmetric else made.codes
        parts = [self._constant(f"{name}_quantized", codes), self._constant(f"{name}_scale", made.scale)]
        if not self._encoding.symmetric:
            parts.append(self._constant(f"{name}_zero_point", made.zero_point))
        return tuple(parts)

    def _quantized(self, weight: ir.Value, rows: bool, block: int, bits: int | None = None) -> Blocks:
        """Integers of a matrix whose rows (else: columns) are what one output multiplies."""
        assert weight.const_value is not None
        matrix = np.asarray(weight.const_value.numpy(), np.float32)
        encoding = self._encoding
        return quantize_blocks(
            matrix if rows else matrix.T,
            bits or encoding.weight_bits,
            block,
            symmetric=encoding.symmetric,
            float_type=encoding.float_type,
        )

    def _replace(self, node: ir.Node, by: ir.Node, bias: ir.Value | None = None) -> None:
        """Put a node, and the Add of a bias, in the place of another; its output keeps its name."""
        old, new = node.outputs[0], [by]
        if bias is not None:
            by.outputs[0].name = self._names.tensor(f"{old.name}_product")
            by.outputs[0].type, by.outputs[0].shape = old.type, old.shape
            new.append(ir.node("Add", [by.outputs[0], bias], name=self._names.node(f"{node.name}_Add")))
        result = new[-1].outputs[0]
        result.type, result.shape, name = old.type, old.shape, old.name
        for use in list(old.uses()):
            use.node.replace_input_with(use.idx, result)
        if old.is_graph_output():
            self._graph.outputs[list(self._graph.outputs).index(old)] = result
        self._graph.insert_before(node, new)
        self._graph.remove(node, safe=True)
        result.name = name

    def _once(self, key: tuple[object, ...], make: Callable[[], tuple[ir.Value, ...]]) -> tuple[ir.Value, ...]:
        """What nodes share that read one weight in one way."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _constant(self, name: str, values: npt.NDArray[np.generic], bits: int = 8) -> ir.Value:
        import ml_dtypes

        held = np.ascontiguousarray(values.astype(ml_dtypes.int4) if bits == 4 else values)
        tensor = ir.tensor(held, name=self._names.tensor(name))
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(held.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value
