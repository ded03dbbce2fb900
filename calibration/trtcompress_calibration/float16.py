"""Float16 or bfloat16 written into a graph: constants stored in it, and a Cast wherever the type changes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir

from trtcompress_graph.errors import PlacementError
from trtcompress_graph.fresh import FreshNames

from .half import MASK, takes_any_float
from .opening import is_constant
from .signature import Half, signature

FLOAT, HALF, BFLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16

_BFLOAT16_MAX = np.float32(2.0**128 - 2.0**120)
_BOUNDS = frozenset({"Clip", "Min", "Max"})


def write_float16(loaded: ir.Model, opset: int, float32: Collection[ir.Node], half: Half = "float16") -> None:
    """Turn the floats of the main graph into float16 (or bfloat16), in place.

    Inputs and outputs of the graph stay float32. QuantizeLinear takes what comes, DequantizeLinear gives what is
    wanted. Subgraphs stay float32 and read float32.

    Args:
        loaded: the graph, with the types of its tensors known.
        opset: of the graph; at least 19.
        float32: nodes that stay float32.
        half: the type.

    Raises:
        PlacementError: the type of a tensor is not known.
    """
    _Writer(loaded.graph, opset, float32, half).write()


class _Writer:
    def __init__(self, graph: ir.Graph, opset: int, float32: Collection[ir.Node], half: Half) -> None:
        self._graph = graph
        self._name: Half = half
        self._half = HALF if half == "float16" else BFLOAT16
        self._opset = opset
        self._float32 = float32
        self._nodes = list(graph)
        self._outputs = set(graph.outputs)
        self._names = FreshNames(graph)
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._constants: dict[ir.Value, list[tuple[ir.Node, int, ir.DataType]]] = {}

    def write(self) -> None:
        for node in self._nodes:
            self._write_node(node)
        for value, uses in self._constants.items():
            self._write_constant(value, uses)
        for value in [v for node in self._nodes for v in node.outputs]:
            self._restore_outside(value)

    def _write_node(self, node: ir.Node) -> None:
        """Give the node inputs of the types that it takes, and its outputs their new types."""
        mode = self._mode(node)
        known = signature(node, self._opset, self._name)
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype not in (FLOAT, self._half):
                continue
            fixed = known is not None and known.input(index) == "float32"
            self._need(node, index, value, FLOAT if fixed else mode)
        for index, value in enumerate(node.outputs):
            if not value.name:  # an optional output that nobody asked for
                continue
            if value.dtype is None:
                raise PlacementError(
                    f"the type of tensor '{value.name}' is not known",
                    where=f"node '{node.name}' ({node.op_type})",
                    hint="simplify the model first: trtcompress simplify",
                )
            if value.dtype == FLOAT and (known is None or known.output(index) != "float32"):
                value.type = ir.TensorType(mode)
        if mode == self._half:
            _write_attributes(node, self._half)

    def _mode(self, node: ir.Node) -> ir.DataType:
        """Type of the node's floats."""
        if node.op_type == "QuantizeLinear":
            source = node.inputs[0]
            return self._half if source is not None and source.dtype == self._half else FLOAT
        if node.op_type == "DequantizeLinear":
            readers = [use.node for use in node.outputs[0].uses()]
            wanted_float32 = node.outputs[0].is_graph_output() or not readers
            return FLOAT if wanted_float32 or all(self._mode(r) == FLOAT for r in readers) else self._half
        if node in self._float32 or node.graph is not self._graph:
            return FLOAT
        if node.op_type != "QuantizeLinear" and takes_any_float(node):
            return next(v.dtype for v in node.inputs if v is not None and v.dtype in (FLOAT, self._half))
        return self._half

    def _need(self, node: ir.Node, index: int, value: ir.Value, wanted: ir.DataType) -> None:
        if is_constant(value):
            self._constants.setdefault(value, []).append((node, index, wanted))
        elif value.dtype != wanted:
            node.replace_input_with(index, self._cast(value, wanted))

    def _cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """`value` in the type `wanted`; one Cast serves all readers."""
        if (value, wanted) not in self._casts:
            suffix = self._name if wanted == self._half else "float32"
            name = self._names.tensor(f"{value.name}_{suffix}")
            cast = ir.node("Cast", [value], {"to": int(wanted)}, name=self._names.node(f"{name}_Cast"))
            result = cast.outputs[0]
            result.name, result.type, result.shape = name, ir.TensorType(wanted), value.shape
            producer = value.producer()
            if producer is None:
                self._graph.insert_before(self._graph[0], [cast])
            else:
                self._graph.insert_after(producer, [cast])
            self._casts[(value, wanted)] = result
        return self._casts[(value, wanted)]

    def _write_constant(self, value: ir.Value, uses: list[tuple[ir.Node, int, ir.DataType]]) -> None:
        """Store a constant in the type that its readers take; in both where they differ."""
        halves = [(node, index) for node, index, wanted in uses if wanted == self._half]
        if not halves:
            return
        assert value.const_value is not None
        bound = all(node.op_type in _BOUNDS for node, _ in halves)
        shared = len(value.uses()) > len(halves) or value in self._outputs
        name = self._names.tensor(f"{value.name}_{self._name}") if shared else value.name or ""
        tensor = ir.tensor(_halves(value.const_value.numpy(), self._half, bound=bound), name=name)
        if not shared:
            value.const_value, value.type = tensor, ir.TensorType(self._half)
            return
        copy = ir.Value(name=name, shape=value.shape, type=ir.TensorType(self._half), const_value=tensor)
        self._graph.register_initializer(copy)
        for node, index in halves:
            node.replace_input_with(index, copy)

    def _restore_outside(self, value: ir.Value) -> None:
        """Subgraphs and the graph's own outputs go on reading float32."""
        if value.dtype != self._half:
            return
        for use in list(value.uses()):
            if use.node.graph is not self._graph:
                use.node.replace_input_with(use.idx, self._cast(value, FLOAT))
        if value in self._outputs:
            name = value.name or ""
            value.name = self._names.tensor(f"{name}_{self._name}")
            result = self._cast(value, FLOAT)
            result.name = name
            self._graph.outputs[list(self._graph.outputs).index(value)] = result


def to_half(
    values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], huge: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    """Values as float16; finite ones beyond its range become `±huge`, infinities stay."""
    wide = np.asarray(values, np.float32)
    beyond = np.isfinite(wide) & (np.abs(wide) > 65504)
    return np.where(beyond, np.sign(wide) * np.float32(huge), wide).astype(np.float16)


def to_bfloat16(
    values: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
    """Values rounded to the nearest bfloat16, half to even; finite ones stay finite."""
    import ml_dtypes

    wide = np.asarray(values, np.float32)
    kept = np.where(np.isfinite(wide), np.clip(wide, -_BFLOAT16_MAX, _BFLOAT16_MAX), wide)
    return kept.astype(ml_dtypes.bfloat16)


def _halves(
    values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], half: ir.DataType, *, bound: bool = False
) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
    return to_bfloat16(values) if half == BFLOAT16 else to_half(values, 65504.0 if bound else MASK)


def _write_attributes(node: ir.Node, half: ir.DataType) -> None:
    """Attributes that name float32, or hold it."""
    for key in ("to", "dtype"):
        attribute = node.attributes.get(key)
        if attribute is not None and attribute.type == ir.AttributeType.INT and attribute.as_int() == FLOAT:
            node.attributes[key] = ir.AttrInt64(key, int(half))
    fill = node.attributes.get("value")
    if fill is not None and fill.type == ir.AttributeType.TENSOR and fill.as_tensor().dtype == FLOAT:
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(_halves(fill.as_tensor().numpy(), half)))
