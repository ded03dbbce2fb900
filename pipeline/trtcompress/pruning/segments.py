"""Running parts of a graph on tensors that were kept in files, so that no pass starts at the inputs again."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.cores import usable_cores
from trtcompress_graph.errors import DataError

from .factors import Shape

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

Array = NDArray[Any]


class Parts:
    """A graph that is run part by part; parts see its weights as they are when they are taken.

    Args:
        model: the graph.
        name: of the file, for messages.
    """

    def __init__(self, model: ir.Model, name: str) -> None:
        self.model = model
        self._name = name
        self._producer = {str(v.name): node for node in model.graph for v in node.outputs}
        self._order = {node: index for index, node in enumerate(model.graph)}
        self._reads = reads(model.graph)

    def part(self, given: Iterable[str], wanted: Iterable[str]) -> Part:
        """What computes `wanted` from `given`."""
        known, asked = set(given), tuple(dict.fromkeys(wanted))
        nodes, inputs, stored = self.needed(known, [name for name in asked if name not in known])
        return Part(self.proto(nodes, stored), asked, tuple(sorted(inputs)), known, self._name)

    def needed(self, given: set[str], wanted: Iterable[str]) -> tuple[set[ir.Node], set[str], set[str]]:
        """Nodes that make `wanted` from `given`, the tensors that they are fed with, and the stored ones."""
        nodes: set[ir.Node] = set()
        inputs, stored = set(), set()
        open_ = list(wanted)
        while open_:
            name = open_.pop()
            if name in self.model.graph.initializers:
                stored.add(name)
            elif name in given or name not in self._producer:
                inputs.add(name)
            elif (node := self._producer[name]) not in nodes:
                nodes.add(node)
                open_ += self._reads[self._order[node]]
        return nodes, inputs, stored

    def proto(self, nodes: set[ir.Node], stored: set[str]) -> onnx.ModelProto:
        """A graph of these nodes and stored tensors; without inputs and outputs."""
        import onnx
        import onnx_ir as ir

        proto = onnx.ModelProto(ir_version=self.model.ir_version)
        for domain, version in self.model.opset_imports.items():
            proto.opset_import.add(domain=domain, version=version)
        proto.graph.name = "part"
        ordered = sorted(nodes, key=lambda node: self._order[node])
        proto.graph.node.extend(ir.serde.serialize_node(node) for node in ordered)
        proto.graph.initializer.extend(_stored(self.model.graph.initializers[name]) for name in sorted(stored))
        return proto


def reads(graph: ir.Graph) -> list[list[str]]:
    """By node, the tensors of the graph that it reads, in graphs inside it too."""
    import onnx_ir as ir

    outer = {*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)}
    found = []
    for node in graph:
        inner = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
        values = {value for part in inner for n in ir.traversal.RecursiveGraphIterator(part) for value in n.inputs}
        values |= {value for part in inner for value in part.outputs}
        found.append(sorted({str(v.name) for v in (*node.inputs, *values) if v is not None and v in outer}))
    return found


def _stored(value: ir.Value) -> onnx.TensorProto:
    import onnx_ir as ir

    tensor = value.const_value
    assert tensor is not None
    return ir.serde.serialize_tensor(ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=str(value.name)))


class Part:
    """A piece of a graph with a session, which is made when the first inputs tell their types.

    Attributes:
        needs: tensors to give.
    """

    def __init__(
        self, proto: onnx.ModelProto, wanted: tuple[str, ...], fed: tuple[str, ...], given: set[str], name: str
    ) -> None:
        self._proto = proto
        self._passed = tuple(name for name in wanted if name in given)
        self._computed = tuple(name for name in wanted if name not in given)
        self._fed = fed
        self._name = name
        self._session: Any = None
        self.needs = tuple(dict.fromkeys((*fed, *self._passed)))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The wanted tensors.

        Raises:
            DataError: ONNX Runtime fails.
        """
        passed = {name: feeds[name] for name in self._passed}
        if not self._computed:
            return passed
        fed = {name: feeds[name] for name in self._fed}
        try:
            self._session = self._session or self._made(fed)
            return passed | dict(zip(self._computed, self._session.run(self._computed, fed), strict=True))
        except Exception as error:  # ONNX Runtime's exception classes share no base
            raise DataError(
                f"the model fails on the samples: {str(error).splitlines()[0]}", where=self._name
            ) from error

    def _made(self, fed: Mapping[str, Array]) -> Any:
        import onnx
        import onnxruntime as ort

        graph = self._proto.graph
        for name, array in fed.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [None] * array.ndim))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._computed)
        options = ort.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return ort.InferenceSession(self._proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Spool:
    """Tensors by batch, one file a batch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: tuple[str, ...] = ()
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, batch: int, tensors: Mapping[str, Array]) -> None:
        """Keep the tensors of one batch; each batch has the same."""
        self._names = tuple(tensors)
        with (self._folder / f"{batch}").open("wb") as file:
            for array in tensors.values():
                np.save(file, array, allow_pickle=False)

    def read(self, batch: int, names: Iterable[str]) -> dict[str, Array]:
        """Tensors of one batch."""
        wanted = set(names)
        with (self._folder / f"{batch}").open("rb") as file:
            held = {name: np.load(file, allow_pickle=False) for name in self._names}
        return {name: array for name, array in held.items() if name in wanted}

    @property
    def names(self) -> tuple[str, ...]:
        """What is kept."""
        return self._names

    def remove(self) -> None:
        """Give the room back."""
        shutil.rmtree(self._folder)


@dataclass(frozen=True, slots=True)
class Segment:
    """Nodes `start` to `stop` of a graph."""

    start: int
    stop: int


_SPEED = 2e10
"""Multiplications a second."""

_DISK = 5e8
"""Bytes a second, written and read again."""

_LAYERS = 16
"""Layers of one segment, at most."""


def segments(
    graph: ir.Graph, shapes: Mapping[str, Shape], costs: Mapping[str, int], places: Sequence[int]
) -> list[Segment]:
    """Where to stop on the way through a graph, so that running and keeping take least.

    Each layer runs its segment again from its start. Boundaries are where the least has to be kept.

    Args:
        graph: the graph of full width.
        shapes: concrete shape of every tensor.
        costs: multiplications by node name.
        places: index of the node of every layer, rising.
    """
    live = _live(graph)
    kept = [sum(4 * int(np.prod(shapes.get(name, (0,)), dtype=np.int64)) for name in names) for names in live]
    last = len(kept) - 1
    inner = [i for i in range(1, last) if kept[i] <= kept[i - 1] and kept[i] <= kept[i + 1]]
    stops = [0, *inner, last]
    work = np.cumsum([0.0, *(costs.get(str(node.name), 0) for node in graph)])
    best: dict[int, tuple[float, int]] = {0: (0.0, 0)}
    for end in stops[1:]:
        options = []
        for start in stops[: stops.index(end)]:
            inside = [place for place in places if start <= place < end]
            if start in best and (len(inside) <= _LAYERS or start == stops[stops.index(end) - 1]):
                runs = sum(work[place + 1] - work[start] for place in inside) + work[end] - work[start]
                options.append((best[start][0] + runs / _SPEED + kept[end] / _DISK, start))
        best[end] = min(options)
    found: list[Segment] = []
    end = last
    while end:
        start = best[end][1]
        found.insert(0, Segment(start, end))
        end = start
    return found


def live_in(other: ir.Graph, graph: ir.Graph) -> list[tuple[str, ...]]:
    """Before each node of a graph, and behind its last: what another version of it has made by then and still reads.

    The other version may have nodes more, and fewer; those that both have stand in the same order.
    """
    live = _live(other)
    if other is graph:
        return live
    order = {node.name: place for place, node in enumerate(other)}
    found, place = [live[-1]], len(order)
    for node in reversed(list(graph)):
        place = order.get(node.name, place)
        found.append(live[place])
    return found[::-1]


def _live(graph: ir.Graph) -> list[tuple[str, ...]]:
    """Before each node, and behind the last: tensors that were made and are still read."""
    made = {str(value.name): 0 for value in graph.inputs}
    made |= {str(value.name): index + 1 for index, node in enumerate(graph) for value in node.outputs}
    ends: dict[str, int] = {}
    read = reads(graph)
    for index, names in enumerate(read):
        ends |= {name: index for name in names if name in made}
    found: list[list[str]] = [[] for _ in range(len(read) + 1)]
    for name, end in ends.items():
        for place in range(made[name], end + 1):
            found[place].append(name)
    return [tuple(sorted(names)) for names in found]
