"""Which tensors calibration reads. The same for all targets: a tensor that any encoding could want."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtcompress_graph.model import Model
from trtcompress_graph.protos import graph_inputs

from .dependence import read_by
from .operators import WEIGHTED

if TYPE_CHECKING:
    import onnx

QUANTIZABLE = frozenset(
    [
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "Add",
        "Mul",
        "Where",
        "Concat",
        "Softmax",
        "Sigmoid",
        "LeakyRelu",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "ReduceMean",
    ]
)
"""Kinds that have INT8 kernels somewhere: their inputs and outputs get histograms.

They hold those of all encodings but what only moves numbers, which takes the range of what it reads.
"""

ACTIVATIONS = frozenset(
    [
        "Relu",
        "Clip",
        "LeakyRelu",
        "PRelu",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Tanh",
        "Elu",
        "Selu",
        "Celu",
        "Gelu",
        "Mish",
        "Softplus",
        "Swish",
    ]
)
"""Kinds that are fused into the node before them: behind a quantizable node their output gets a histogram too.

Behind one of `FUSED_BY_RUNTIME` as well, which such a node absorbs first.
"""

FUSED_BY_RUNTIME = frozenset({"Relu", "Clip"})
"""What lies between a node and one of these is not read, so that ONNX Runtime can still fuse the two.

A Clip whose bounds do not lie around zero is none of them: no kernel absorbs it, and what it reads needs a range.
"""

BOUNDED = frozenset(["Softmax", "Sigmoid", "HardSigmoid", "Tanh", "Erf", "Sin", "Cos", "Sign", "Softsign"])
"""Kinds whose results cannot exceed 1, so FP16 cannot overflow there."""

SAME_VALUES = frozenset(["Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"])
"""Kinds whose output holds the very values of their first input, so that it need not be read again."""

_WEIGHTED = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul", "Gather", "LSTM", "GRU", "RNN"])
"""Kinds whose constant inputs are weights."""

_FLOATS = ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")


@dataclass(frozen=True, slots=True)
class Taps:
    """Tensors to read, in the order of the graph.

    Attributes:
        histogram: candidates for INT8.
        extremes: what only FP16 asks about.
        aliases: tensors that hold the values of another one that is read.
    """

    histogram: tuple[str, ...]
    extremes: tuple[str, ...]
    aliases: Mapping[str, str]


def tapped_tensors(model: Model) -> Taps:
    """The tensors of a model that calibration reads; graphs inside `If`, `Loop` and `Scan` are left out."""
    return taps_of(read_skeleton(model))


def read_skeleton(model: Model) -> onnx.ModelProto:
    """The graph of a model without its weights; other constants, such as masks and most biases, are there."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor

    proto = onnx.load(model.path, load_external_data=False)
    weights = {name for node in proto.graph.node for name in _weights(node)}
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            tensor.ClearField("raw_data")
        elif tensor.data_location == onnx.TensorProto.EXTERNAL:
            load_external_data_for_tensor(tensor, str(model.path.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
    return proto


def _weights(node: onnx.NodeProto) -> list[str]:
    if node.op_type not in _WEIGHTED:
        return []
    kind = WEIGHTED.get(node.op_type)
    return [name for place, name in enumerate(node.input) if kind is None or place != kind.bias]


def taps_of(proto: onnx.ModelProto) -> Taps:
    """`tapped_tensors` of a graph that was read."""
    graph = _Graph(proto)
    wanted: dict[str, bool] = {}  # name -> whether its histogram is wanted
    for name in graph.activations:
        wanted[name] = graph.quantizable(name)
    for name in [*wanted]:
        if graph.hidden_by_fusion(name, wanted) or not (wanted[name] or graph.can_overflow(name)):
            del wanted[name]
    aliases = {}
    for name in [*wanted]:
        source = graph.source(name)
        if source != name:
            aliases[name] = source
            wanted[source] = wanted.pop(name) or wanted.get(source, False)
    order = [name for name in graph.activations if name in wanted]
    return Taps(
        tuple(name for name in order if wanted[name]),
        tuple(name for name in order if not wanted[name]),
        aliases,
    )


class _Graph:
    """What the rule asks of a graph.

    Attributes:
        activations: floats that depend on the input, in the order of the graph.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._producer = {name: node for node in proto.graph.node for name in node.output if name}
        self._consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in proto.graph.node:
            for name in read_by(node):
                self._consumers[name].append(node)
        self._outputs = {value.name for value in proto.graph.output}
        floats = _float_names(proto)
        constants = _constants(proto)
        self._bounds = _numbers(proto)
        inputs = [value.name for value in graph_inputs(proto)]
        self.activations = [
            name for name in [*inputs, *self._producer] if name not in constants and floats.get(name, True)
        ]
        self._held = frozenset(self.activations)

    def quantizable(self, name: str) -> bool:
        """Read or written by a quantizable node, or written by an activation behind one."""
        if any(node.op_type in QUANTIZABLE for node in self._consumers[name]):
            return True
        node = self._producer.get(name)
        if node is None or node.op_type in QUANTIZABLE:
            return True  # graph inputs too
        before = self._producer.get(node.input[0]) if node.input else None
        while before is not None and self._rectifies(before):
            before = self._producer.get(before.input[0])
        return node.op_type in ACTIVATIONS and before is not None and before.op_type in QUANTIZABLE

    def hidden_by_fusion(self, name: str, wanted: Mapping[str, bool]) -> bool:
        """Whether only a Relu or Clip reads it, whose own result is read."""
        readers = self._consumers[name]
        return (
            name in self._producer
            and name not in self._outputs
            and len(readers) == 1
            and self._rectifies(readers[0])
            and readers[0].input[0] == name
            and readers[0].output[0] in wanted
        )

    def _rectifies(self, node: onnx.NodeProto) -> bool:
        """Whether zero passes it unchanged, as far as is known."""
        if node.op_type not in FUSED_BY_RUNTIME:
            return False
        given = {attribute.name: attribute.f for attribute in node.attribute}  # before opset 11
        bounds = [given.get("min", 0.0), given.get("max", 0.0)]
        for place, name in enumerate(node.input[1:3]):
            bounds[place] = self._bounds.get(name, math.nan) if name else 0.0
        return bool(bounds[0] <= 0 <= bounds[1])

    def can_overflow(self, name: str) -> bool:
        """Whether its values have no bound."""
        node = self._producer.get(name)
        return node is None or node.op_type not in BOUNDED

    def source(self, name: str) -> str:
        """The activation that first held the values of this one."""
        node = self._producer.get(name)
        while node is not None and node.op_type in SAME_VALUES and node.input[0] in self._held:
            name = node.input[0]
            node = self._producer.get(name)
        return name


def _constants(proto: onnx.ModelProto) -> set[str]:
    """Tensors that no input can change."""
    names = {tensor.name for tensor in proto.graph.initializer}
    names |= {tensor.values.name for tensor in proto.graph.sparse_initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" or (node.input and all(not name or name in names for name in read_by(node))):
            names.update(node.output)
    return names


def _numbers(proto: onnx.ModelProto) -> dict[str, float]:
    """Constants of a single float."""
    import onnx

    found: dict[str, float] = {}
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value_float":
                found[node.output[0]] = attribute.f
            elif attribute.name == "value":
                tensors[node.output[0]] = attribute.t
    floats = {onnx.TensorProto.DataType.Value(name) for name in _FLOATS}
    for name, tensor in tensors.items():
        held = tensor.raw_data or tensor.float_data or tensor.double_data or tensor.int32_data
        if tensor.data_type in floats and not tensor.dims and held:
            found[name] = float(onnx.numpy_helper.to_array(tensor))
    return found


def _float_names(proto: onnx.ModelProto) -> dict[str, bool]:
    """Whether each tensor holds floats, as far as ONNX can infer it."""
    import onnx

    floats = {onnx.TensorProto.DataType.Value(name) for name in _FLOATS}
    graph = onnx.shape_inference.infer_shapes(proto).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {v.name: v.type.tensor_type.elem_type in floats for v in values if v.type.WhichOneof("value")}
