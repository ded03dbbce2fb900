"""Running a graph from tensors in its middle, so that a change behind them costs no pass over what lies before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trtcompress_graph.cores import usable_cores
from trtcompress_graph.errors import DataError

from .samples import Array

if TYPE_CHECKING:
    import onnx

Feed = Mapping[str, Array]

_LARGE = 256
"""Elements from which a stored tensor is given to the session beside the graph, and so is never copied into it."""


class PartedGraph:
    """A graph of which parts are run.

    Args:
        proto: the graph; its external data is loaded.
        threads: for ONNX Runtime; 0 is all cores that this process may use.
        optimize: let ONNX Runtime fuse float nodes; without, each node is computed by itself.
    """

    def __init__(self, proto: onnx.ModelProto, threads: int = 0, *, optimize: bool = True) -> None:
        import onnx

        self.nodes = tuple(proto.graph.node)
        self.place = {name: place for place, node in enumerate(self.nodes) for name in node.output if name}
        self.stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        self.reads = tuple(tuple(dict.fromkeys(_reads(node))) for node in self.nodes)
        self._version, self._opsets = proto.ir_version, tuple(proto.opset_import)
        self._threads = threads or usable_cores()
        self._optimize = optimize

    def part(self, given: Feed, wanted: Iterable[str], quantized: Mapping[tuple[int, int], str] | None = None) -> Part:
        """What computes `wanted` from tensors like those that are given.

        Args:
            given: example values.
            wanted: names of tensors.
            quantized: inputs of nodes, by place and index, that read another of the given tensors.
        """
        asked = tuple(dict.fromkeys(wanted))
        moved = quantized or {}
        places: set[int] = set()
        inputs, stored = set(moved.values()), set()
        open_ = [name for name in asked if name not in given]
        while open_:
            name = open_.pop()
            if name in given:
                inputs.add(name)
            elif name in self.stored:
                stored.add(name)
            elif name in self.place and self.place[name] not in places:
                places.add(self.place[name])
                open_ += self.reads[self.place[name]]
        nodes = [self._rewired(place, moved) for place in sorted(places)]
        held = {name: self.stored[name] for name in sorted(stored)}
        return self.part_of(nodes, {name: given[name] for name in sorted(inputs)}, asked, held)

    def frame(self) -> onnx.ModelProto:
        """A graph without nodes, of the same operator sets."""
        import onnx

        proto = onnx.ModelProto(ir_version=self._version, opset_import=self._opsets)
        proto.graph.name = "part"
        return proto

    def part_of(self, nodes: Iterable[onnx.NodeProto], given: Feed, wanted: Sequence[str], stored: Feed) -> Part:
        """A part of these very nodes, which read what is given and what is stored."""
        import onnx

        proto = self.frame()
        proto.graph.node.extend(nodes)
        made = {name for node in proto.graph.node for name in node.output}
        outside: dict[str, Array] = {}
        for name, array in stored.items():
            if array.size < _LARGE or array.dtype.kind not in "fiu":
                proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
            else:
                proto.graph.initializer.append(_elsewhere(name, array))
                outside[name] = array
        for name, array in given.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [None] * array.ndim))
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name in made)
        return Part(proto, tuple(wanted), outside, self._threads, optimize=self._optimize)

    def _rewired(self, place: int, moved: Mapping[tuple[int, int], str]) -> onnx.NodeProto:
        import onnx

        node = onnx.NodeProto()
        node.CopyFrom(self.nodes[place])
        names = {index: name for (at, index), name in moved.items() if at == place}
        for index, name in names.items():
            node.input[index] = name
        return node


class Part:
    """A part that is ready to run; Q/DQ pairs in it are computed as they are written."""

    def __init__(
        self, proto: onnx.ModelProto, wanted: tuple[str, ...], outside: Feed, threads: int, *, optimize: bool
    ) -> None:
        import onnxruntime as ort

        self._wanted = wanted
        self._inputs = tuple(value.name for value in proto.graph.input)
        self._outputs = [value.name for value in proto.graph.output]
        self._session = None
        if not self._outputs:
            return
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        values = [ort.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C")) for array in outside.values()]
        options.add_external_initializers(list(outside), values)
        try:
            self._session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exception classes share no base
            raise _unusable(error) from error

    def __call__(self, feed: Feed) -> dict[str, Array]:
        """The wanted tensors; those that were given come back as they are.

        Raises:
            DataError: the model fails on these values.
        """
        found: dict[str, Array] = {}
        if self._session is not None:
            try:
                made = self._session.run(self._outputs, {name: feed[name] for name in self._inputs})
            except Exception as error:
                raise _unusable(error) from error
            found = dict(zip(self._outputs, made, strict=True))
        return {name: found[name] if name in found else feed[name] for name in self._wanted}


def _unusable(error: Exception) -> DataError:
    return DataError(
        f"the model fails on the samples: {str(error).splitlines()[0]}",
        where="samples",
        hint="`trtcompress inspect` tells the inputs that it takes",
    )


def _reads(node: onnx.NodeProto) -> list[str]:
    """Tensors that a node reads, in graphs inside it too (names of tensors made in there do no harm)."""
    found = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                found += _reads(inner)
            found += [value.name for value in graph.output]
    return found


def _elsewhere(name: str, array: Array) -> onnx.TensorProto:
    """A stored tensor whose values are given to the session."""
    import onnx

    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    proto = onnx.TensorProto(name=name, data_type=kind, dims=array.shape)
    proto.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "weights"), ("offset", "0"), ("length", str(array.nbytes))):
        proto.external_data.add(key=key, value=value)
    return proto
