"""Which layers of a cut graph can be solved anew, and what each is held against."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_calibration.gram import MOST_FEATURES
from trtcompress_calibration.layers import Layer, linear_layers
from trtcompress_graph.comparable import SELECTS, behind
from trtcompress_graph.fresh import FreshNames

from .coupling import Coupling
from .cut import Alive, Cut
from .factors import Bools, Shape
from .surgery import initializer

if TYPE_CHECKING:
    import onnx_ir as ir

_CLAMPS = ("Relu", "Clip")

_CHANNELWISE = frozenset(
    [
        *_CLAMPS,
        *(
            "LeakyRelu",
            "PRelu",
            "Elu",
            "Selu",
            "Sigmoid",
            "HardSigmoid",
            "HardSwish",
            "Tanh",
            "Gelu",
            "Erf",
            "Softplus",
        ),
        *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Exp", "Identity", "Cast", "Pad", "Resize"),
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "BatchNormalization"),
        *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Split", "Slice", "Gather", "Concat"),
    ]
)
"""Operators whose living results do not depend on what was cut, unless they take statistics over it."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A layer to solve.

    Attributes:
        layer: of the full graph.
        place: index of its node there.
        compared: tensor that is brought to the full model's: the output, or what an addition or a clamp makes of it.
        wanted: the full model's tensor that it is brought to; another one where a block behind it was taken out.
        living: outputs that live.
        features: features that live.
    """

    layer: Layer
    place: int
    compared: str
    wanted: str
    living: Bools
    features: Bools


def tasks_of(
    graph: ir.Graph, shapes: Mapping[str, Shape], coupling: Coupling, cut: Cut, reference: ir.Graph
) -> list[Task]:
    """Layers that read what was cut, or what is changed by it, in the order of the graph.

    Left out are layers that share their weight, that are wider than `MOST_FEATURES`, whose channels do not lie on one
    axis, and that read what was selected by value.

    Args:
        graph: of full width.
        shapes: of its tensors.
        coupling: of it.
        cut: what goes of it.
        reference: the same, or the graph from before residual blocks were taken out of it: the layer before a block
            is then brought to what the block gave, the layers behind it are solved too.
    """
    alive = Alive(coupling.factors, cut)
    layers = {layer.name: layer for layer in linear_layers(graph, shapes)}
    moved, stands = _rewired(graph, reference)
    changed = _changed(graph, layers, coupling, alive, moved)
    jumping = behind(graph, SELECTS)
    tasks = []
    for place, node in enumerate(graph):
        layer = layers.get(str(node.name))
        if layer is None or _width(layer, shapes) > MOST_FEATURES or len(_present(node.inputs[1]).uses()) > 1:
            continue
        features, living = (_channels(alive, name, layer, shapes) for name in (layer.x, layer.y))
        if features is None or living is None or not jumping.isdisjoint((layer.x, layer.y)):
            continue
        compared = _compared(node, layer, shapes)
        cut_inputs = layer.kind != "depthwise" and not features.all()
        if layer.x in changed or layer.name in moved or compared in stands or cut_inputs:
            wanted = stands.get(compared, compared)
            tasks.append(Task(layer, place, compared, wanted, living, layer.features_of(features)))
    return tasks


def _width(layer: Layer, shapes: Mapping[str, Shape]) -> int:
    return layer.window if layer.kind == "depthwise" else layer.features(shapes[layer.x])


def _channels(alive: Alive, name: str, layer: Layer, shapes: Mapping[str, Shape]) -> Bools | None:
    """Which channels of a tensor live; None where the cut is not along its channels alone."""
    shape = shapes[name]
    axis = layer.channel_axis % len(shape)
    living = np.ones(shape[axis], bool)
    for factor in alive.touched(name):
        if factor.axes != (axis,):
            return None
        living &= alive.kept(factor.labels)
    return living


def _rewired(graph: ir.Graph, reference: ir.Graph) -> tuple[set[str], dict[str, str]]:
    """Nodes that read other tensors than in the reference; and tensors that stand for another one to all readers."""
    if graph is reference:
        return set(), {}
    before = {str(node.name): [None if v is None else str(v.name) for v in node.inputs] for node in reference}
    moved: set[str] = set()
    stands: dict[str, set[str]] = {}
    for node in graph:
        for value, name in zip(node.inputs, before[str(node.name)], strict=True):
            if value is None or name is None or value.is_initializer():
                continue
            stands.setdefault(str(value.name), set()).add(name)
            if value.name != name:
                moved.add(str(node.name))
    return moved, {name: names.pop() for name, names in stands.items() if len(names) == 1 and name not in names}


def _changed(
    graph: ir.Graph, layers: Mapping[str, Layer], coupling: Coupling, alive: Alive, moved: Container[str]
) -> set[str]:
    """Tensors whose living elements may differ from the full graph's."""
    changed: set[str] = set()
    for node in graph:
        names = [str(value.name) for value in node.inputs if value is not None]
        layer = layers.get(str(node.name))
        apart = node.op_type in _CHANNELWISE or (layer is not None and layer.kind == "depthwise")
        mixes = not apart or str(node.name) in coupling.normalized
        given = [str(v.name) for v in node.inputs if v is not None and not v.is_initializer()]
        cut = mixes and any(alive.touched(name) for name in given)
        if cut or str(node.name) in moved or not changed.isdisjoint(names):
            changed.update(str(value.name) for value in node.outputs)
    return changed


def _compared(node: ir.Node, layer: Layer, shapes: Mapping[str, Shape]) -> str:
    """Look through an addition of another branch, then through a clamp, where nothing else reads what is before."""
    value = node.outputs[0]
    if layer.y != value.name:
        value = next(iter(value.uses())).node.outputs[0]
    reader = _only_reader(value)
    if reader is not None and reader.op_type == "Add" and _alike(reader, shapes):
        value = reader.outputs[0]
        reader = _only_reader(value)
    if reader is not None and reader.op_type in _CLAMPS and reader.inputs[0] is value:
        value = reader.outputs[0]
    return str(value.name)


def _alike(add: ir.Node, shapes: Mapping[str, Shape]) -> bool:
    """Whether two branches of one shape are added."""
    stored = any(value.is_initializer() for value in add.inputs if value is not None)
    lengths = {shapes.get(str(value.name)) for value in (*add.inputs, *add.outputs) if value is not None}
    return not stored and len(lengths) == 1


def _only_reader(value: ir.Value) -> ir.Node | None:
    readers = {use.node for use in value.uses()}
    return readers.pop() if len(readers) == 1 and not value.is_graph_output() else None


def own_biases(graph: ir.Graph, tasks: Sequence[Task]) -> None:
    """Give each layer a bias that no other node reads, and a convolution or Gemm without one a bias of zeros."""
    names = FreshNames(graph)
    nodes = {node.name: node for node in graph}
    for task in tasks:
        node, layer = nodes[task.layer.name], task.layer
        if layer.bias is None and not layer.may_get_bias:
            continue
        if layer.may_get_bias:
            zeros = np.zeros(int(task.living.sum()), _array(node.inputs[1]).dtype)
            node.resize_inputs(3)
            node.replace_input_with(2, initializer(graph, names.tensor(f"{node.name}.bias"), zeros))
            continue
        reader, place = _bias_place(node, layer)
        held = _present(reader.inputs[place])
        if len(held.uses()) > 1:
            own = initializer(graph, names.tensor(f"{held.name}.{node.name}"), _array(held))
            reader.replace_input_with(place, own)


def bias_of(graph: ir.Graph, layer: Layer) -> str | None:
    """The stored bias that a layer has now."""
    if layer.bias is None and layer.kind == "matmul":
        return None
    reader, place = _bias_place(next(node for node in graph if node.name == layer.name), layer)
    return str(_present(reader.inputs[place]).name)


def _present(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _array(value: ir.Value | None) -> NDArray[Any]:
    """The elements of a stored input."""
    tensor = _present(value).const_value
    assert tensor is not None
    return tensor.numpy()


def _bias_place(node: ir.Node, layer: Layer) -> tuple[ir.Node, int]:
    if layer.kind != "matmul":
        return node, 2
    use = next(iter(node.outputs[0].uses()))
    return use.node, 1 - use.idx
