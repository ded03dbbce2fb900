"""The masked reference: a graph of full size in which what a cut takes away is zero, made without any surgery.

Float initializers are multiplied by their masks, every float activation is set to zero where it is dead, and what
takes statistics over a cut axis takes those of what is alive (`alive_statistics`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .alive_statistics import STATISTICS
from .writing import Mask, Writer

MaskOf = Callable[[str, tuple[int, ...]], NDArray[np.bool_] | None]
"""The alive elements of a tensor of that shape; None where all of them are."""

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}


def masked(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], mask: MaskOf) -> onnx.ModelProto:
    """Make the reference.

    Args:
        model: it is not changed.
        shapes: of every tensor, as the mask is asked for. An axis along which a mask does not change may have
            another length when the reference runs.
        mask: tells what is alive.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    types = _types(model)
    alive = {
        name: least
        for name, shape in shapes.items()
        if types.get(name) in _FLOATS and (least := _least(mask(name, shape), shape)) is not None
    }
    integers = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer if t.data_type == TensorProto.INT64}
    writer = Writer(integers)
    for tensor in proto.graph.initializer:
        if tensor.name in alive:
            array = numpy_helper.to_array(tensor)
            zeroed = np.where(alive[tensor.name], array, np.zeros_like(array))
            tensor.CopyFrom(numpy_helper.from_array(zeroed, tensor.name))
    for node in proto.graph.node:
        _write(writer, node, alive, types)
    del proto.graph.node[:]
    proto.graph.node.extend(writer.nodes)
    proto.graph.initializer.extend(writer.initializers)
    return proto


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _least(mask: Mask | None, shape: tuple[int, ...]) -> Mask | None:
    """The mask with length 1 along each axis where it does not change; None where all is alive."""
    if mask is None or mask.all():
        return None
    alive: Mask = np.broadcast_to(mask, shape)
    for axis in range(alive.ndim):
        first = alive.take([0], axis)
        if (alive == first).all():
            alive = first
    return alive


def _write(writer: Writer, node: onnx.NodeProto, alive: Mapping[str, Mask], types: Mapping[str, int]) -> None:
    """Write a node with statistics of what is alive, and set the dead part of its outputs to zero."""
    dead = [name for name in node.output if name in alive]
    whole = onnx.NodeProto()
    whole.CopyFrom(node)
    whole.output[:] = [f"{name}/whole" if name in dead else name for name in node.output]
    rewrite = STATISTICS.get(node.op_type)
    if rewrite is not None and node.input[0] in alive:
        writer.dtype = helper.tensor_dtype_to_np_dtype(types[node.input[0]])
        rewrite(writer, whole, alive[node.input[0]])
    else:
        writer.nodes.append(whole)
    for name in dead:
        writer.dtype = helper.tensor_dtype_to_np_dtype(types[name])
        writer.where(alive[name], f"{name}/whole", 0.0, name)
