"""Every node and every dynamic axis has a name; names that exist are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def name_nodes(model: ir.Model) -> None:
    """Give nodes without a name one from their kind and output, and tell apart those that share one."""
    taken = {str(node.name) for node in model.graph.all_nodes() if node.name}
    seen: set[str] = set()
    for node in model.graph.all_nodes():
        if node.name and node.name not in seen:
            seen.add(node.name)
            continue
        stem = node.name or f"{node.op_type}:{next((v.name for v in node.outputs if v.name), '')}"
        name, count = stem, 1
        while name in taken or name in seen:
            name, count = f"{stem}_{count}", count + 1
        node.name = name
        seen.add(name)


def name_unnamed_axes(model: ir.Model) -> None:
    """Call the axes of inputs that have neither length nor name `<input>_<index>`, as `Model.inputs` does."""
    import onnx_ir as ir

    for value in model.graph.inputs:
        if value.shape is not None:
            dims = [
                f"{value.name}_{index}" if isinstance(dim, ir.SymbolicDim) and dim.value in (None, "", "?") else dim
                for index, dim in enumerate(value.shape)
            ]
            value.shape = ir.Shape(dims)
