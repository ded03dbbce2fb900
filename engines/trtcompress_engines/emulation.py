"""A float16 or bfloat16 graph made to compute in these types on a CPU, whose kernels take float32.

ONNX Runtime widens float16 nodes to float32 and keeps the wide numbers from node to node: nothing is rounded, nothing
overflows, and a graph that would answer with infinities on its device looks perfect. (It names the casts that it
inserts, and removes them in pairs; casts that stand in the graph stay.) So the rounding is written into the graph.
bfloat16 it does not compute at all; the same rounding does for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trtcompress_graph.shapes import infer

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtcompress_graph.model import Model

_PICKS = frozenset(
    (
        "Abs",
        "Clip",
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "GlobalMaxPool",
        "Identity",
        "Max",
        "MaxPool",
        "Min",
        "Neg",
        "Pad",
        "ReduceMax",
        "ReduceMin",
        "Relu",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
    )
)
"""Kinds whose results are among the numbers that they read (or their negatives): there is nothing to round."""


def rounding_float16(path: Path) -> bytes | None:
    """The graph as protobuf, its float16 and bfloat16 nodes in float32 with each result rounded to their type.

    Every node is rounded for itself, as the graph says; a device that fuses nodes may round less often. Weights in
    external data stay where they are. None for a graph without these types, which computes what it says.
    """
    import onnx_ir as ir

    loaded = ir.load(path)
    if any(value.dtype is None and value.name for node in loaded.graph for value in node.outputs):
        infer(loaded)
    nodes = [node for node in loaded.graph if _computes_in_halves(node)]
    if not nodes:
        return None
    writer = _Writer(loaded.graph)
    for node in nodes:
        writer.write(node)
    content: bytes = ir.serde.serialize_model(loaded).SerializeToString()
    return content


def quantizes_for_a_gpu(model: Model) -> bool:
    """Whether a graph quantizes halves, or to FP8: a CPU has no kernel that computes this in integers."""
    from trtcompress_graph.load import load_ir

    return any(
        value is not None and value.dtype is not None and (value.dtype in _halves() or "FLOAT8" in value.dtype.name)
        for node in load_ir(model).graph.all_nodes()
        if node.op_type == "QuantizeLinear"
        for value in (*node.inputs, *node.outputs)
    )


def _computes_in_halves(node: ir.Node) -> bool:
    """Casts convert as they say; what makes halves of other types, or holds a graph, is left to ONNX Runtime."""
    import onnx_ir as ir

    holds_graph = any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
    reads = any(value is not None and value.dtype in _halves() for value in node.inputs)
    return reads and not holds_graph and node.op_type != "Cast" and node.domain in ("", "ai.onnx")


def _halves() -> frozenset[ir.DataType]:
    import onnx_ir as ir

    return frozenset((ir.DataType.FLOAT16, ir.DataType.BFLOAT16))


class _Writer:
    def __init__(self, graph: ir.Graph) -> None:
        from trtcompress_graph.fresh import FreshNames

        self._graph = graph
        self._names = FreshNames(graph)
        self._wide: dict[ir.Value, ir.Value] = {}

    def write(self, node: ir.Node) -> None:
        """Have the node read and write float32; whoever reads its results reads them rounded."""
        import onnx_ir as ir

        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in _halves():
                if value not in self._wide:
                    self._wide[value] = self._cast(value, ir.DataType.FLOAT, f"{value.name}_wide")
                node.replace_input_with(index, self._wide[value])
        for value in node.outputs:
            if value.dtype in _halves():
                rounded = self._round(value)
                if node.op_type in _PICKS:
                    self._wide[rounded] = value

    def _round(self, value: ir.Value) -> ir.Value:
        """Give the node's float32 result another name, and its own name to what it is rounded to."""
        import onnx_ir as ir

        assert value.dtype is not None
        name, half, uses = value.name or "", value.dtype, list(value.uses())
        value.name, value.type = self._names.tensor(f"{name}_exact"), ir.TensorType(ir.DataType.FLOAT)
        rounded = self._cast(value, half, name)
        for use in uses:
            use.node.replace_input_with(use.idx, rounded)
        if value.is_graph_output():
            self._graph.outputs[self._graph.outputs.index(value)] = rounded
        return rounded

    def _cast(self, value: ir.Value, wanted: ir.DataType, name: str) -> ir.Value:
        """`value` in another type, under a name of its own or the one that it gave away."""
        import onnx_ir as ir

        given_away = wanted in _halves()
        cast = ir.node("Cast", [value], {"to": int(wanted)}, name=self._names.node(f"{name}_Cast"))
        result = cast.outputs[0]
        result.name = name if given_away else self._names.tensor(name)
        result.type, result.shape = ir.TensorType(wanted), value.shape
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], [cast])
        else:
            self._graph.insert_after(producer, [cast])
        return result
