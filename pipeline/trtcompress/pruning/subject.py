"""A model as pruning sees it: its graph, the shapes of its tensors, and what can be cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtcompress_graph.errors import ModelError
from trtcompress_graph.load import load_ir
from trtcompress_graph.model import Model
from trtcompress_graph.shapes import graph_shapes

from .coupling import Coupling, analyse
from .factors import Shape

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model that was analysed.

    Attributes:
        graph: the full graph; not to be changed.
        inputs: concrete shape of each input.
        shapes: concrete shape of every tensor, at these.
    """

    model: Model
    graph: ir.Model
    inputs: Mapping[str, Shape]
    shapes: Mapping[str, Shape]
    coupling: Coupling

    @property
    def weights(self) -> dict[str, ir.TensorProtocol]:
        """Stored tensors by name."""
        stored = self.graph.graph.initializers
        return {name: value.const_value for name, value in stored.items() if value.const_value is not None}


def study(model: Model, inputs: Mapping[str, Shape]) -> Subject:
    """Analyse a simplified model at these shapes of its inputs.

    Raises:
        ModelError: it is quantized, or a shape does not fit.
    """
    from trtcompress_calibration.placement import already_quantized

    quantized = already_quantized(model)
    if quantized:
        raise ModelError(
            f"it is quantized already ({len(quantized)} nodes)",
            where=f"{model.path}: node '{quantized[0]}'",
            hint="prune the float model, then quantize it",
        )
    graph = load_ir(model)
    shapes = graph_shapes(graph, model, inputs)
    return Subject(model, graph, dict(inputs), shapes, analyse(graph.graph, shapes))
