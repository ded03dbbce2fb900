"""A graph with float16 parts is trained in float32, and gets its types back; integers and names stay.

Halves are slow on a CPU, and too coarse for small steps (arXiv 1710.03740).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trtcompress_graph.load import load_ir, save_ir
from trtcompress_graph.model import Model

if TYPE_CHECKING:
    import onnx_ir as ir

_TYPED = ("to", "output_dtype", "dtype")
"""Attributes that name a type."""


def has_halves(model: Model) -> bool:
    """Whether a graph stores float16 or bfloat16, or casts to one."""
    loaded = load_ir(model)
    stored = any(value.dtype in _halves() for graph in loaded.graphs() for value in graph.initializers.values())
    return stored or any(_named(node) for node in loaded.graph.all_nodes())


def in_float32(model: Model, out: Path) -> Model:
    """The graph with float32 wherever it has float16 or bfloat16."""
    import numpy as np
    import onnx_ir as ir

    loaded = load_ir(model)
    for graph in loaded.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and value.dtype in _halves():
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values(), *_results(graph)):
            if value.dtype in _halves():
                value.dtype = ir.DataType.FLOAT
        for node in graph:
            _retype(node)
    return save_ir(loaded, out)


def in_halves(trained: Model, like: Model, out: Path) -> Model:
    """The graph `like` with what `in_float32` of it learnt."""
    import onnx_ir as ir

    loaded, learnt = load_ir(like), load_ir(trained)
    held = {name: value.const_value for graph in learnt.graphs() for name, value in graph.initializers.items()}
    for graph in loaded.graphs():
        for name, value in graph.initializers.items():
            new, old = held.get(name), value.const_value
            if new is not None and old is not None:
                narrow = old.dtype in _halves()
                value.const_value = ir.tensor(new.numpy().astype(old.numpy().dtype), name=name) if narrow else new
    return save_ir(loaded, out)


def _retype(node: ir.Node) -> None:
    import numpy as np
    import onnx_ir as ir

    for name in _named(node):
        node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _halves():
            held = attribute.as_tensor()
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(held.numpy().astype(np.float32), name=held.name))


def _named(node: ir.Node) -> list[str]:
    """The attributes that name float16 or bfloat16."""
    import onnx_ir as ir

    found = [(name, node.attributes[name]) for name in _TYPED if name in node.attributes]
    return [name for name, a in found if a.type == ir.AttributeType.INT and a.as_int() in {int(h) for h in _halves()}]


def _results(graph: ir.Graph) -> list[ir.Value]:
    return [value for node in graph for value in node.outputs]


def _halves() -> frozenset[ir.DataType]:
    import onnx_ir as ir

    return frozenset((ir.DataType.FLOAT16, ir.DataType.BFLOAT16))
