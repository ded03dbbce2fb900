"""The places of a graph where INT8 enters: nodes with all that they read and write, and single tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.fresh import FreshNames

from .kinds import activation_inputs, weight_of
from .layout import Pair, written
from .lstm import write_lstm
from .opening import is_constant
from .parts import Feed, Part, PartedGraph
from .qdq import QdqWriter
from .samples import Array
from .scales import Scale


@dataclass(frozen=True, slots=True, eq=False)
class NodeSpot:
    """A node in INT8.

    Attributes:
        node: the node.
        last: the last of the rectifiers that it absorbs, or itself.
        pairs: on what it reads, and on what it writes as INT8, with the scales of the whole quantized graph.
    """

    node: ir.Node
    last: ir.Node
    pairs: tuple[Pair, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """Activations that it reads; of an LSTM the lengths and states too, where they are not constant."""
        if self.node.op_type == "LSTM":
            return tuple(str(v.name) for v in self.node.inputs if v is not None and not is_constant(v))
        read = (self.node.inputs[i] for i in activation_inputs(self.node))
        return tuple(str(value.name) for value in read if value is not None)

    @property
    def writes(self) -> tuple[str, ...]:
        """Tensors that it leaves."""
        return tuple(str(value.name) for value in self.last.outputs if value.name)

    @property
    def weight(self) -> str | None:
        """The weight that is quantized."""
        weight = weight_of(self.node)
        return None if weight is None else weight.name

    def head(self, graph: PartedGraph, example: Feed, encoding: Encoding, *, weights_only: bool = False) -> Part:
        """The node alone, with what it absorbs, in INT8: a part that gives `writes` for `reads`.

        Args:
            graph: the float graph.
            example: values of what it reads.
            encoding: of the pairs.
            weights_only: leave what it reads and writes in float.
        """
        loaded = ir.from_proto(self._alone(graph, example))
        small = loaded.graph
        writer = QdqWriter(small, encoding)
        if self.node.op_type == "LSTM":
            write_lstm(loaded, small[0], encoding.weight_bits, FreshNames(small))
        elif weights_only:
            writer.write_weights(small[0], next(p.scale for p in self.pairs if (self.node, 0) in p.readers))
        else:
            writer.write(list(self._pairs_in(small)), {small[0]})
        stored = {
            name: np.asarray(value.const_value.numpy())
            for name, value in small.initializers.items()
            if value.const_value is not None and value.uses()
        }
        nodes = [ir.serde.serialize_node(node) for node in small]
        return graph.part_of(nodes, {name: example[name] for name in self.reads}, self.writes, stored)

    def _alone(self, graph: PartedGraph, example: Feed) -> onnx.ModelProto:
        places = sorted(graph.place[next(str(v.name) for v in node.outputs if v.name)] for node in self._chain())
        proto = graph.frame()
        proto.graph.node.extend(graph.nodes[place] for place in places)
        for name in dict.fromkeys(name for place in places for name in graph.reads[place]):
            if name in graph.stored:
                proto.graph.initializer.append(onnx.numpy_helper.from_array(graph.stored[name], name))
        infos = proto.graph.input, proto.graph.output
        for info, names in zip(infos, (dict.fromkeys(self.reads), self.writes), strict=True):
            info.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
        return proto

    def _chain(self) -> list[ir.Node]:
        """The node and the rectifiers that it absorbs, the last one first."""
        chain = [self.last]
        while chain[-1] is not self.node:
            value = chain[-1].inputs[0]
            before = value.producer() if value is not None else None
            assert before is not None
            chain.append(before)
        return chain

    def _pairs_in(self, small: ir.Graph) -> Iterator[Pair]:
        """The pairs, on the tensors of the small graph."""
        node = small[0]
        values = {str(value.name): value for value in (*small.inputs, *small.outputs)}
        for pair in self.pairs:
            name = str(pair.value.name)
            readers = tuple((node, index) for reader, index in pair.readers if reader is self.node)
            yield Pair(values[name], pair.scale, readers, name in self.writes)


def node_spots(
    graph: ir.Graph, int8: Collection[ir.Node], pairs: Collection[Pair], encoding: Encoding
) -> tuple[NodeSpot, ...]:
    """A spot for each node of `int8`, in the order of the graph."""
    found = []
    for node in graph:
        if node not in int8:
            continue
        results = written(node, int8, encoding)
        kept = tuple(p for p in pairs if p.value in results or any(reader is node for reader, _ in p.readers))
        last = results[0].producer() if results else None
        found.append(NodeSpot(node, last or node, kept))
    return tuple(found)


def restored(values: Array, scale: Scale) -> Array:
    """`values` behind a Q/DQ pair: QuantizeLinear and DequantizeLinear of ONNX, to the last bit."""
    limits = np.iinfo(scale.zero_point.dtype)
    zero = np.float32(scale.zero_point)
    steps = np.clip(np.rint(values.astype(np.float32) / scale.scale) + zero, limits.min, limits.max)
    result: Array = (steps - zero) * scale.scale
    return result
