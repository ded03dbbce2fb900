"""Float16 written into a graph: constants stored in it, and a Cast wherever the type changes."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from trtcompress_graph.errors import PlacementError
from trtcompress_graph.fresh import FreshNames

from .half import MASK, takes_any_float
from .opening import is_constant
from .signature import signature

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16

_BOUNDS = frozenset({"Clip", "Min", "Max"})


def write_float16(loaded: ir.Model, opset: int, float32: Collection[ir.Node]) -> None:
    """Turn the floats of the main graph into float16, in place.

    Inputs and outputs of the graph stay float32. QuantizeLinear takes what comes, DequantizeLinear gives what is
    wanted. Subgraphs stay float32 and read float32.

    Args:
        loaded: the graph, with the types of its tensors known.
        opset: of the graph; at least 19.
        float32: nodes that stay float32.

    Raises:
        PlacementError: the type of a tensor is not known.
    """
    _Writer(loaded.graph, opset, float32).write()


class _Writer:
    def __init__(self, graph: ir.Graph, opset: int, float32: Collection[ir.Node]) -> None:
        self._graph = graph
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
        known = signature(node, self._opset)
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype not in (FLOAT, HALF):
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
        if mode == HALF:
            _write_attributes(node)

    def _mode(self, node: ir.Node) -> ir.DataType:
        """Type of the node's floats."""
        if node.op_type == "QuantizeLinear":
            source = node.inputs[0]
            return HALF if source is not None and source.dtype == HALF else FLOAT
        if node.op_type == "DequantizeLinear":
            readers = [use.node for use in node.outputs[0].uses()]
            wanted_float32 = node.outputs[0].is_graph_output() or not readers
            return FLOAT if wanted_float32 or all(self._mode(r) == FLOAT for r in readers) else HALF
        if node in self._float32 or node.graph is not self._graph:
            return FLOAT
        if node.op_type != "QuantizeLinear" and takes_any_float(node):
            return next(v.dtype for v in node.inputs if v is not None and v.dtype in (FLOAT, HALF))
        return HALF

    def _need(self, node: ir.Node, index: int, value: ir.Value, wanted: ir.DataType) -> None:
        if is_constant(value):
            self._constants.setdefault(value, []).append((node, index, wanted))
        elif value.dtype != wanted:
            node.replace_input_with(index, self._cast(value, wanted))

    def _cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """`value` in the type `wanted`; one Cast serves all readers."""
        if (value, wanted) not in self._casts:
            suffix = "float16" if wanted == HALF else "float32"
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
        halves = [(node, index) for node, index, wanted in uses if wanted == HALF]
        if not halves:
            return
        assert value.const_value is not None
        bound = all(node.op_type in _BOUNDS for node, _ in halves)
        shared = len(value.uses()) > len(halves) or value in self._outputs
        name = self._names.tensor(f"{value.name}_float16") if shared else value.name or ""
        tensor = ir.tensor(to_half(value.const_value.numpy(), 65504.0 if bound else MASK), name=name)
        if not shared:
            value.const_value, value.type = tensor, ir.TensorType(HALF)
            return
        copy = ir.Value(name=name, shape=value.shape, type=ir.TensorType(HALF), const_value=tensor)
        self._graph.register_initializer(copy)
        for node, index in halves:
            node.replace_input_with(index, copy)

    def _restore_outside(self, value: ir.Value) -> None:
        """Subgraphs and the graph's own outputs go on reading float32."""
        if value.dtype != HALF:
            return
        for use in list(value.uses()):
            if use.node.graph is not self._graph:
                use.node.replace_input_with(use.idx, self._cast(value, FLOAT))
        if value in self._outputs:
            name = value.name or ""
            value.name = self._names.tensor(f"{name}_float16")
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


def _write_attributes(node: ir.Node) -> None:
    """Attributes that name float32, or hold it."""
    for key in ("to", "dtype"):
        attribute = node.attributes.get(key)
        if attribute is not None and attribute.type == ir.AttributeType.INT and attribute.as_int() == FLOAT:
            node.attributes[key] = ir.AttrInt64(key, int(HALF))
    fill = node.attributes.get("value")
    if fill is not None and fill.type == ir.AttributeType.TENSOR and fill.as_tensor().dtype == FLOAT:
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(to_half(fill.as_tensor().numpy(), MASK)))
