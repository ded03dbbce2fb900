"""What the output loses when a group is cut, measured on held-back samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .allocation.task import Curve
from .cut import Alive, Cut
from .groups import Group
from .importance import Evidence

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

FRACTIONS = (0.4, 0.6, 0.75, 0.875)
"""Shares of a group's width at which its damage is measured; between them it is interpolated."""

RIDGE = 1e-2

Arrays = list[NDArray[Any]]


class Answers:
    """What the full model answers to some samples, and how far another graph is from it.

    Args:
        model: the full graph.
        feeds: batches of inputs; kept, with the answers.
        threads: for ONNX Runtime.
    """

    def __init__(self, model: ir.Model, feeds: Iterable[Mapping[str, NDArray[Any]]], threads: int) -> None:
        import onnx_ir as ir

        self.proto = ir.serde.serialize_model(model)
        self._feeds = list(feeds)
        self._threads = threads
        self._full = self._run(self.proto)
        self._powers = [_power([batch[place] for batch in self._full]) for place in range(len(self._full[0]))]

    def damage(self, proto: onnx.ModelProto) -> float:
        """Squared error of the outputs over their variance, the mean of all outputs."""
        errors = np.zeros(len(self._powers))
        for full, others in zip(self._full, self._run(proto), strict=True):
            for place, (a, b) in enumerate(zip(full, others, strict=True)):
                errors[place] += float(np.square(a.astype(np.float64) - b).sum())
        damage = float(np.mean(errors / self._powers))
        return damage if np.isfinite(damage) else 1e9

    def _run(self, proto: onnx.ModelProto) -> list[Arrays]:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = self._threads
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [session.run(None, dict(feeds)) for feeds in self._feeds]


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
        import onnx

        weights = self._weights(Cut.of(self._evidence.coupling.relations, units))
        proto = onnx.ModelProto()
        proto.CopyFrom(self._answers.proto)
        for tensor in proto.graph.initializer:
            if tensor.name in weights:
                dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
                tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name].astype(dtype), tensor.name))
        return self._answers.damage(proto)

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


def _power(batches: Arrays) -> float:
    """Summed squares of an output around its mean."""
    count = sum(batch.size for batch in batches)
    mean = sum(float(batch.sum(dtype=np.float64)) for batch in batches) / max(count, 1)
    return max(sum(float(np.square(batch.astype(np.float64) - mean).sum()) for batch in batches), 1e-30)
