"""What importances look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..coupling import Coupling
from ..factors import Bools, Shape
from ..groups import Group
from .slopes import Slopes

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtcompress_calibration.gram import Gram
    from trtcompress_calibration.layers import Layer


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """A model as it is scored.

    Attributes:
        weights: stored tensors by name.
        layers: products with weights, in the order of the graph.
        grams: statistics of the inputs of layers, by their name; empty without data.
        seed: of what is random.
        slopes: gradients of weights; None without data.
    """

    coupling: Coupling
    shapes: Mapping[str, Shape]
    weights: Mapping[str, ir.TensorProtocol]
    layers: tuple[Layer, ...] = ()
    grams: Mapping[str, Gram] = field(default_factory=dict)
    seed: int = 0
    slopes: Slopes | None = None
    _lock: Lock = field(default_factory=Lock, repr=False)

    def array(self, name: str) -> NDArray[Any]:
        """A stored tensor as float32; one that lies beside the graph is mapped by one thread at a time."""
        with self._lock:
            held = self.weights[name].numpy()
        return held.astype(np.float32, copy=False)

    def consumers(self, group: Group) -> Iterator[tuple[Layer, dict[int, Bools]]]:
        """Dense layers that read what the group cuts, with the features of their inputs that each unit is."""
        closures = {unit: self.coupling.relations.closure([unit]) for unit in group.units}
        for layer in self.layers:
            labels = self.channel_labels(layer)
            if layer.kind == "depthwise" or labels is None:
                continue
            places = {label: index for index, label in enumerate(labels.tolist())}
            if all(places.keys().isdisjoint(fall) for fall in closures.values()):
                continue
            yield (
                layer,
                {unit: layer.features_of(np.isin(labels, list(fall))) for unit, fall in closures.items()},
            )

    def channel_labels(self, layer: Layer) -> NDArray[np.int64] | None:
        """Labels along the channels of a layer's input; None where they are not cut."""
        rank = len(self.shapes.get(layer.x, ()))
        for factor in self.coupling.factors.get(layer.x, ()):
            if factor.axes == (layer.channel_axis % rank,):
                return factor.labels
        return None
