"""A model without its weights, for ONNX's own tools, which cannot hold more than 2 GiB."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_SMALL = 1024
"""Initializers of up to this many bytes stay: shapes, axes and pads are data that the tools look at."""


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf, its large initializers turned into inputs. The model itself stays as it is."""
    import onnx_ir as ir

    graph = model.graph
    inputs = list(graph.inputs)
    removed = large_initializers(model)
    try:
        for value in removed.values():
            if value not in graph.inputs:
                graph.inputs.append(value)
            graph.initializers.pop(str(value.name))
        return ir.serde.serialize_model(model)
    finally:
        graph.inputs.clear()
        graph.inputs.extend(inputs)
        for value in removed.values():
            graph.initializers.add(value)


def large_initializers(model: ir.Model) -> dict[str, ir.Value]:
    """Initializers of the main graph that a skeleton leaves out, by name."""
    return {
        name: value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > _SMALL
    }
