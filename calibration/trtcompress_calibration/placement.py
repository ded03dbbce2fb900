"""A precision plan written into a graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trtcompress_graph.encoding import QUANTIZED, Encoding, PrecisionPlan
from trtcompress_graph.errors import PlacementError
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

from .precision import needed_opset

if TYPE_CHECKING:
    import onnx_ir as ir


def quantize(
    model: Model, ranges: Ranges, plan: PrecisionPlan, encoding: Encoding, out: Path, *, weights: str = "minmax"
) -> Model:
    """Write INT8 and FP8 as Q/DQ pairs, integer weights for the nodes that read them, FP16 and BF16 as casts.

    Inputs and outputs of the graph keep names, types and shapes; a quantized weight `w` becomes `w_quantized`,
    `w_scale` and `w_zero_point`. Equal arguments give equal bytes.

    Args:
        model: the float model that the plan was made for.
        ranges: of its tensors.
        plan: precision of every node, made by `plan_precision` (and perhaps changed since).
        encoding: the encoding of the plan.
        out: path of the ONNX file to write.
        weights: how far a channel of an INT8 weight reaches; see `weights.WEIGHT_METHODS`.

    Raises:
        PlacementError: the plan is not of this model.
        DataError: a tensor to quantize has no range.
        ModelError: the model is quantized already.
    """
    from trtcompress_graph.fresh import FreshNames
    from trtcompress_graph.load import copy_model, save_ir

    if encoding.activation is None and not encoding.integers and encoding.float_type == "float32":
        return copy_model(model, out)
    from .float16 import write_float16
    from .kept_float import keep_float
    from .layout import lay_out
    from .lstm import write_lstm
    from .opening import open_graph, opset_of
    from .pooling import convolve_means, pool_means
    from .qdq import QdqWriter

    loaded = open_graph(model, needed_opset(encoding))
    graph = loaded.graph
    check_plan(model, graph, plan, encoding)
    by_name = {node.name: node for node in graph.all_nodes()}
    float32 = {by_name[p.node] for p in plan.nodes if p.precision == "float32"}
    quantized = {p.node for p in plan.nodes if p.precision in QUANTIZED}
    if encoding.integers:
        from .formats.weights import write_weights

        write_weights(loaded, encoding, {by_name[name] for name in quantized})
    elif encoding.activation is not None:
        int8 = int8_nodes(graph, plan, encoding)
        QdqWriter(graph, encoding, weights).write(lay_out(graph, int8, encoding, ranges.tensors), int8)
        pool_means(graph, [node for node in graph if node in int8], encoding, FreshNames(graph))
        convolve_means(graph, [node for node in graph if node in int8], FreshNames(graph))
        for node in recurrent_nodes(graph, plan, encoding):
            write_lstm(loaded, node, encoding.weight_bits, FreshNames(graph))
        if encoding.int8_outputs:
            keep_float(graph, int8, encoding, FreshNames(graph))
    if encoding.float_type != "float32":
        write_float16(loaded, opset_of(loaded), float32, encoding.float_type)
    return save_ir(loaded, out)


def int8_nodes(graph: ir.Graph, plan: PrecisionPlan, encoding: Encoding) -> set[ir.Node]:
    """Nodes that a plan has quantized by themselves: not those that an engine moves pairs over, or absorbs."""
    planned = {p.node for p in plan.nodes if p.precision == encoding.quantized}
    return {node for node in graph if node.name in planned and node.op_type in encoding.ops}


def recurrent_nodes(graph: ir.Graph, plan: PrecisionPlan, encoding: Encoding) -> list[ir.Node]:
    """LSTMs whose weights a plan has as integers: they read floats, and no pair stands around them."""
    planned = {p.node for p in plan.nodes if p.precision == encoding.quantized}
    return [node for node in graph if node.op_type == "LSTM" and node.name in planned]


def check_plan(model: Model, graph: ir.Graph, plan: PrecisionPlan, encoding: Encoding) -> None:
    """Refuse a plan that was made for something else.

    Raises:
        PlacementError: it is of another model or encoding.
    """
    names = {node.name for node in graph.all_nodes()}
    unknown = [p.node for p in plan.nodes if p.node not in names]
    if unknown or plan.encoding != encoding.name:
        raise PlacementError(
            f"the plan is for encoding '{plan.encoding}'"
            if not unknown
            else f"the plan is of another model: it has no node '{unknown[0]}'",
            where=f"{model.path} ({encoding.name})",
            hint="make the plan again for this model and this encoding",
        )


def already_quantized(model: Model) -> tuple[str, ...]:
    """Names of the nodes that work on quantized numbers; empty for a float model."""
    from trtcompress_graph.load import load_ir

    from .opening import quantized_nodes

    return quantized_nodes(load_ir(model))


def quantizes_activations(model: Model) -> bool:
    """Whether nodes of the graph should compute in INT8 or FP8; not where weights alone are integers."""
    from trtcompress_graph import quantized_ops
    from trtcompress_graph.load import load_ir

    return any(quantized_ops.quantizes_activations(node.op_type) for node in load_ir(model).graph.all_nodes())
