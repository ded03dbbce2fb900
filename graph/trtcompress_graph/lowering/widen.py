"""float16 written as float32: Q/DQ pairs have float32 scales alone before opset 19."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper

from ..load import save_ir
from ..model import Model

_QUANTIZING = ("QuantizeLinear", "DequantizeLinear")


def quantizes_halves(model: Model) -> bool:
    """Whether a scale of a Q/DQ pair is float16."""
    graph = onnx.load(model.path, load_external_data=False).graph
    halves = {one.name for one in graph.initializer if one.data_type == TensorProto.FLOAT16}
    return any(node.op_type in _QUANTIZING and node.input[1] in halves for node in graph.node)


def widen(model: Model, path: Path) -> Model:
    """Write the graph with float32 in place of float16; the scales stay equal to the last bit.

    TensorRT 8 takes float16 by a builder flag, so that it may compute as before; the graph itself rounds less.
    """
    proto = onnx.load(model.path)
    for graph in _graphs(proto.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for initializer in graph.initializer:
            _widened(initializer)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype", "output_dtype") and attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.FLOAT
                elif attribute.HasField("t"):
                    _widened(attribute.t)
    _drop_casts(proto.graph)
    return save_ir(ir.from_proto(proto), path)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _widened(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _drop_casts(graph: onnx.GraphProto) -> None:
    """Casts from float32 to float32 in the main graph go; what gives an output of the graph keeps its name."""
    wide = {v.name for v in (*graph.input, *graph.value_info, *graph.output) if _is_float(v)}
    outputs = {value.name for value in graph.output}
    inner = {name for held in _graphs(graph) if held is not graph for node in held.node for name in node.input}
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
        to_float = node.op_type == "Cast" and any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute)
        if to_float and node.input[0] in wide and node.output[0] not in outputs and node.output[0] not in inner:
            same[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == TensorProto.FLOAT)
