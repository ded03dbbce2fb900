"""What the output loses when a group is cut, measured on held-back samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.comparable import comparable
from trtcompress_graph.errors import DataError

from .allocation.task import Curve
from .cut import Alive, Cut
from .groups import Group
from .importance import Evidence
from .segments import Parts

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

FRACTIONS = (0.4, 0.6, 0.75, 0.875)
"""Shares of a group's width at which its damage is measured; between them it is interpolated."""

RIDGE = 1e-2

_SMALL = 64
"""Elements of a tensor that stays in the graph."""

Arrays = list[NDArray[Any]]


class Answers:
    """What the full model answers to some samples, and how far another graph is from it.

    Compared are the outputs; in place of one that jumps with the values before it (boxes that were selected, classes),
    the last tensors that do not.

    Args:
        model: the full graph.
        feeds: batches of inputs; kept, with the answers.
        threads: for ONNX Runtime.

    Raises:
        DataError: the model fails on a sample, its answer is not finite, or there is nothing to compare.
    """

    def __init__(self, model: ir.Model, feeds: Iterable[Mapping[str, NDArray[Any]]], threads: int) -> None:
        self._names = comparable(model.graph)
        if not self._names:
            raise DataError(
                "no output depends on the samples smoothly, so that damage could be measured",
                hint="give --allocation global",
            )
        self._model = model
        self._bare = self._without_weights(model)
        self._feeds = list(feeds)
        self._threads = threads
        self._full = self._run(*self._bare)
        for place, name in enumerate(self._names):
            if not all(np.isfinite(batch[place]).all() for batch in self._full):
                raise DataError(
                    f"the model gives NaN or infinity in '{name}' before anything is cut",
                    where="samples",
                    hint="look at the samples' values and their preprocessing; a float16 model may overflow",
                )
        self._powers = [_power([batch[place] for batch in self._full]) for place in range(len(self._full[0]))]

    def damage_of(self, model: ir.Model) -> float:
        """Squared error of the outputs of a graph over their variance, the mean of all outputs."""
        return self._error(*self._without_weights(model))

    def damage_with(self, weights: Mapping[str, NDArray[Any]]) -> float:
        """The same, of the full graph with other values for some of its weights."""
        import onnx

        proto, held = self._bare
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        for tensor in changed.graph.initializer:
            if tensor.name in weights and tensor.name not in held:
                tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
        return self._error(changed, {name: weights.get(name, array) for name, array in held.items()})

    def _error(self, proto: onnx.ModelProto, weights: Mapping[str, NDArray[Any]]) -> float:
        errors = np.zeros(len(self._powers))
        for full, others in zip(self._full, self._run(proto, weights), strict=True):
            for place, (a, b) in enumerate(zip(full, others, strict=True)):
                errors[place] += float(np.square(a.astype(np.float64) - b).sum())
        damage = float(np.mean(errors / self._powers))
        return damage if np.isfinite(damage) else 1e9

    def _without_weights(self, model: ir.Model) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
        """A graph that gives what is compared, and its weights beside it: so it stays small however large they are.

        Small tensors stay in the graph: shapes can hang on them.
        """
        import onnx
        import onnx_ir as ir

        parts = Parts(model, "")
        nodes, _, stored = parts.needed({str(value.name) for value in model.graph.inputs}, self._names)
        tensors = {name: model.graph.initializers[name].const_value for name in sorted(stored)}
        floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
        large = {n: t for n, t in tensors.items() if t is not None and t.dtype in floats and t.size > _SMALL}
        proto = parts.proto(nodes, stored - large.keys())
        proto.graph.input.extend(ir.serde.serialize_value(value) for value in model.graph.inputs)
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._names)
        proto.graph.initializer.extend(_elsewhere(name, tensor) for name, tensor in large.items())
        weights = {name: tensor.numpy() for name, tensor in large.items()}
        return proto, weights

    def _run(self, proto: onnx.ModelProto, weights: Mapping[str, NDArray[Any]]) -> list[Arrays]:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = self._threads
        values = [ort.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C")) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
        try:
            session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
            return [session.run(list(self._names), dict(feeds)) for feeds in self._feeds]
        except Exception as error:  # ONNX Runtime's exception classes share no base
            raise DataError(
                f"the model fails on the samples: {str(error).splitlines()[0]}",
                where="samples",
                hint="`trtcompress inspect` tells the inputs that it takes",
            ) from error


class Meter:
    """Measures one group after another on the graph of full size, with what goes set to zero and the rest repaired.

    Costs a session and a pass over the samples for each width.

    Args:
        answers: of the full model.
        evidence: with the statistics that consumers are repaired from.
        told: called after each measurement.
    """

    def __init__(self, answers: Answers, evidence: Evidence, told: Callable[[], None] = lambda: None) -> None:
        self._answers = answers
        self._evidence = evidence
        self._told = told

    def curve(self, group: Group, ranked: tuple[tuple[int, ...], ...], allowed: tuple[int, ...]) -> Curve:
        """Damage by parts that stay, at some of the widths that are allowed."""
        wanted = {min(allowed[:-1], key=lambda part: abs(part - f * group.step)) for f in FRACTIONS}
        found = {}
        for part in sorted(wanted):
            units = [
                unit for cell, kept in zip(ranked, group.kept(part), strict=True) for unit in cell[: len(cell) - kept]
            ]
            found[part] = self.damage(units)
            self._told()
        return found

    def damage(self, units: Collection[int]) -> float:
        """Damage at the output when these units go."""
        weights = self._weights(Cut.of(self._evidence.coupling.relations, units))
        held = self._evidence.weights
        return self._answers.damage_with(
            {name: array.astype(held[name].dtype.numpy(), copy=False) for name, array in weights.items()}
        )

    def _weights(self, cut: Cut) -> dict[str, NDArray[Any]]:
        """Weights of the full graph with what goes set to zero, and the consumers repaired."""
        from .repair import repaired

        evidence = self._evidence
        alive = Alive(evidence.coupling.factors, cut)
        changed: dict[str, NDArray[Any]] = {}
        for name in evidence.weights:
            if alive.touched(name):
                mask = alive.mask(name, evidence.shapes[name])
                assert mask is not None
                changed[name] = evidence.array(name) * mask
        for layer in evidence.layers:
            labels = evidence.channel_labels(layer)
            gram = evidence.grams.get(layer.name)
            if layer.kind == "depthwise" or labels is None or gram is None or alive.kept(labels).all():
                continue
            kept = layer.features_of(alive.kept(labels))
            whole = layer.matrix(evidence.array(layer.weight))
            if len(gram.mean) != len(whole):
                continue
            solved, shift = repaired(gram, whole, kept, RIDGE)
            matrix = np.zeros_like(whole)
            matrix[kept] = solved
            mask = alive.mask(layer.weight, evidence.shapes[layer.weight])
            weight = layer.stored(matrix, evidence.array(layer.weight))
            changed[layer.weight] = weight if mask is None else weight * mask
            if layer.bias is not None:
                bias = evidence.array(layer.bias) + shift.reshape(evidence.shapes[layer.bias]).astype(np.float32)
                mask = alive.mask(layer.bias, evidence.shapes[layer.bias])
                changed[layer.bias] = bias if mask is None else bias * mask
        return changed


def _elsewhere(name: str, tensor: ir.TensorProtocol) -> onnx.TensorProto:
    """A stored tensor whose values are given to the session."""
    import onnx

    proto = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=tuple(tensor.shape.numpy()))
    proto.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "weights"), ("offset", "0"), ("length", str(tensor.nbytes))):
        proto.external_data.add(key=key, value=value)
    return proto


def _power(batches: Arrays) -> float:
    """Summed squares of an output around its mean."""
    count = sum(batch.size for batch in batches)
    mean = sum(float(batch.sum(dtype=np.float64)) for batch in batches) / max(count, 1)
    return max(sum(float(np.square(batch.astype(np.float64) - mean).sum()) for batch in batches), 1e-30)
