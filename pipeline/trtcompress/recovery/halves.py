"""A graph with float16 parts is trained in float32, and gets its types back; integers and names stay.

Halves are slow on a CPU, and too coarse for small steps (arXiv 1710.03740).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trtcompress_graph.errors import ModelError
from trtcompress_graph.load import load_ir, save_ir
from trtcompress_graph.model import Model

if TYPE_CHECKING:
    import onnx_ir as ir

_TYPED = ("to", "output_dtype", "dtype")
"""Attributes that name a type."""


def has_halves(model: Model) -> bool:
    """Whether a graph takes or stores float16 or bfloat16, or casts to one."""
    loaded = load_ir(model)
    values = [value for graph in loaded.graphs() for value in (*graph.inputs, *graph.initializers.values())]
    nodes = list(loaded.graph.all_nodes())
    return any(value.dtype in _halves() for value in values) or any(_named(node) or _held(node) for node in nodes)


def in_float32(model: Model, out: Path) -> Model:
    """The graph with float32 wherever it has float16 or bfloat16; `model` itself where it has none."""
    import numpy as np
    import onnx_ir as ir

    if not has_halves(model):
        return model
    out.parent.mkdir(parents=True, exist_ok=True)
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
    """The graph `like` with what `in_float32` of it learnt, in initializers and in `Constant` nodes.

    What shares its name with another tensor, as branches may have it, was not trained and stays.

    Raises:
        ModelError: a weight has grown beyond what its type holds.
    """
    import onnx_ir as ir

    from trtcompress_graph.torch_view.prepare import stored, told_apart

    loaded, learnt = load_ir(like), load_ir(trained)
    held = {name: tensor for name, holder in stored(learnt) if (tensor := _tensor(holder)) is not None}
    places = stored(loaded)
    apart = told_apart(places)
    for name, holder in places:
        new, old = held.get(name) if name in apart else None, _tensor(holder)
        if new is None or old is None:
            continue
        made = _narrowed(new, old, f"{like.path}: '{name}'") if old.dtype in _halves() else new
        if isinstance(holder, ir.Value):
            holder.const_value = made
        else:
            holder.attributes["value"] = ir.AttrTensor("value", made)
    return save_ir(loaded, out)


def _narrowed(new: ir.TensorProtocol, old: ir.TensorProtocol, where: str) -> ir.TensorProtocol:
    """A trained tensor in the type that it had."""
    import numpy as np
    import onnx_ir as ir

    wide = new.numpy()
    with np.errstate(over="ignore"):  # told below
        narrow = wide.astype(old.numpy().dtype)
    if not np.isfinite(narrow[np.isfinite(wide)]).all():
        raise ModelError(
            f"what was trained is greater than {old.dtype.name.lower()} holds",
            where=where,
            hint="lower the learning rate, or train the float32 model and convert what comes of it",
        )
    return ir.tensor(narrow, name=old.name)


def _tensor(holder: ir.Value | ir.Node) -> ir.TensorProtocol | None:
    """What an initializer or a `Constant` node holds; None where it holds no tensor."""
    import onnx_ir as ir

    if isinstance(holder, ir.Value):
        return holder.const_value
    return holder.attributes["value"].as_tensor() if "value" in holder.attributes else None


def _retype(node: ir.Node) -> None:
    import numpy as np
    import onnx_ir as ir

    for name in _named(node):
        node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    for name in _held(node):
        held = node.attributes[name].as_tensor()
        node.attributes[name] = ir.AttrTensor(name, ir.tensor(held.numpy().astype(np.float32), name=held.name))


def _held(node: ir.Node) -> list[str]:
    """The attributes that hold a tensor of float16 or bfloat16."""
    import onnx_ir as ir

    found = [(name, a) for name, a in node.attributes.items() if a.type == ir.AttributeType.TENSOR]
    return [name for name, attribute in found if attribute.as_tensor().dtype in _halves()]


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
