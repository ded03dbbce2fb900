"""Without samples: what is cut is merged into the kept unit that is most alike.

Two channels whose incoming weights point the same way carry the same signal up to a factor, so the consumers' weights
of the one can be given to the other (after "Data-free parameter pruning", arXiv 1507.06149).
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_calibration.layers import Layer, linear_layers

from .cut import Cut
from .groups import Group
from .importance import Evidence
from .subject import Subject

if TYPE_CHECKING:
    import onnx_ir as ir

ALIKE = 0.6
"""Cosine below which two channels have nothing to say about each other."""

Matrix = NDArray[np.float64]


def merge(graph: ir.Model, subject: Subject, cut: Cut) -> None:
    """Change the weights of consumers in a graph of full size, before what is dead is cut out of it.

    Only units that are single channels are merged, and weights that several nodes share are left as they are.
    """
    layers = linear_layers(graph.graph, subject.shapes)
    shared = {name for name, value in graph.graph.initializers.items() if len(value.uses()) > 1}
    evidence = Evidence(subject.coupling, subject.shapes, subject.weights, layers)
    changed: dict[str, Matrix] = {}
    for group in subject.coupling.groups:
        if group.kind == "channels" and not cut.dead.isdisjoint(group.units):
            _merge_group(evidence, group, cut, shared, changed)
    for layer in layers:
        if layer.weight in changed:
            _write(graph, layer, changed[layer.weight])


def _merge_group(
    evidence: Evidence, group: Group, cut: Cut, shared: Container[str], changed: dict[str, Matrix]
) -> None:
    units = np.array(group.units)
    signatures = _signatures(evidence, group)
    dead = np.array([unit in cut.dead for unit in group.units])
    if signatures is None or dead.all():
        return
    norms = np.maximum(np.linalg.norm(signatures, axis=1), 1e-30)
    cosines = (signatures[dead] / norms[dead, None]) @ (signatures[~dead] / norms[~dead, None]).T
    best = cosines.argmax(axis=1)
    for layer, features in evidence.consumers(group):
        if layer.weight in shared:
            continue
        matrix = changed.setdefault(layer.weight, layer.matrix(evidence.array(layer.weight)))
        for place, unit in enumerate(units[dead].tolist()):
            other = int(units[~dead][best[place]])
            cosine = float(cosines[place, best[place]])
            if cosine > ALIKE and features[unit].sum() == features[other].sum():
                scale = cosine * norms[dead][place] / norms[~dead][best[place]]
                matrix[features[other]] += scale * matrix[features[unit]]


def _signatures(evidence: Evidence, group: Group) -> Matrix | None:
    """For each unit, what makes it: the columns of its producers' matrices, with their biases."""
    parts: list[Matrix] = []
    for layer in evidence.layers:
        rank = len(evidence.shapes.get(layer.y, ()))
        labels = next(
            (f.labels for f in evidence.coupling.factors.get(layer.y, ()) if f.axes == (layer.channel_axis % rank,)),
            None,
        )
        if labels is None:
            continue
        places = {label: index for index, label in enumerate(labels.tolist())}
        if not all(unit in places for unit in group.units):
            continue
        columns = layer.matrix(evidence.array(layer.weight)).T
        if layer.bias is not None:
            columns = np.concatenate([columns, evidence.array(layer.bias).reshape(-1, 1)], axis=1)
        parts.append(columns[[places[unit] for unit in group.units]])
    return np.concatenate(parts, axis=1) if parts else None


def _write(graph: ir.Model, layer: Layer, matrix: NDArray[Any]) -> None:
    import onnx_ir as ir

    value = graph.graph.initializers[layer.weight]
    assert value.const_value is not None
    held = value.const_value.numpy()
    value.const_value = ir.Tensor(layer.stored(matrix, held), name=layer.weight, dtype=value.const_value.dtype)
