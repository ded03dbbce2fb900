"""Names of an exported graph: those that the user knows from the network and the config."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trtcompress_graph.errors import ExportError

from .network import Network

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

_KEPT_METADATA = "pkg.torch.onnx.name_scopes"
_SMALL = 16
"""Constants of up to this many elements are no parameters."""


def name_inputs(graph: ir.Model, names: list[str]) -> None:
    """Call the inputs by the parameters of `forward`."""
    for value, name in zip(graph.graph.inputs, names, strict=True):
        _free(graph, name, value)
        value.name = name


def name_outputs(graph: ir.Model, names: list[str]) -> None:
    """Give the outputs their names; one that is also an input, a weight or another output gets a node of its own."""
    import onnx_ir as ir

    outputs = graph.graph.outputs
    if len(outputs) != len(names):
        raise ExportError(
            f"the network returns {len(names)} tensors, the exported graph {len(outputs)}",
            where=", ".join(names),
            hint="return each tensor once, in a tuple or a dict",
        )
    seen: set[ir.Value] = set()
    for index, (value, wanted) in enumerate(zip(list(outputs), names, strict=True)):
        name = wanted if all(wanted != given.name for given in graph.graph.inputs) else f"{wanted}_output"
        if value in seen or value.producer() is None:
            node = ir.node("Identity", [value])
            graph.graph.append(node)
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            value = outputs[index] = node.outputs[0]
        _free(graph, name, value)
        value.name = name
        seen.add(value)


def _free(graph: ir.Model, name: str, owner: ir.Value) -> None:
    """Rename whatever else holds the name."""
    for value in _values(graph):
        if value.name == name and value is not owner:
            value.name = f"{name}_inner"


def _values(graph: ir.Model) -> Iterator[ir.Value]:
    """Every value of the graph and of the graphs inside."""
    for part in graph.graphs():
        yield from part.inputs
        yield from list(part.initializers.values())
        for node in part:
            yield from node.outputs


def name_axes(graph: ir.Model, network: Network) -> None:
    """Put the names of the dynamic axes in the place of the exporter's symbols (`s77`), everywhere.

    Raises:
        ExportError: the network's code turned a dynamic axis into a constant.
    """
    import onnx_ir as ir

    symbols: dict[str, str] = {}
    for value in graph.graph.inputs:
        dims = list(value.shape or ())
        for index, axis in network.axes.get(str(value.name), {}).items():
            if axis.range is not None and axis.range.min == axis.range.max:
                continue
            dim = dims[index]
            if isinstance(dim, int):
                raise ExportError(
                    f"the axis '{axis.name}' of the input '{value.name}' became the constant {dim}",
                    where=network.source,
                    hint="the network's code fixes it: make the code work for any length, or take the axis out of "
                    f"model.inputs.{value.name}",
                )
            symbols.setdefault(str(dim.value), axis.name)
            dims[index] = ir.SymbolicDim(axis.name)
        value.shape = ir.Shape(dims)
    if not symbols:
        return
    pattern = re.compile(r"\b(" + "|".join(re.escape(symbol) for symbol in symbols) + r")\b")
    inputs = set(graph.graph.inputs)
    for value in _values(graph):
        if value.shape is not None and value not in inputs:
            value.shape = ir.Shape(
                [
                    pattern.sub(lambda match: symbols[match[1]], dim.value)
                    if isinstance(dim, ir.SymbolicDim) and dim.value is not None
                    else dim
                    for dim in value.shape
                ]
            )


def name_parameters(graph: ir.Model, module: torch.nn.Module) -> None:
    """Give weights that lost their name that of the parameter they equal to the bit, `<name>.T` if transposed."""
    state = {name: tensor for name, tensor in module.state_dict(keep_vars=False).items() if tensor.numel() > _SMALL}
    known = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers()), **state}
    lost = [
        value
        for part in graph.graphs()
        for value in part.initializers.values()
        if value.const_value is not None
        and value.const_value.size > _SMALL
        and str(value.name).removesuffix(".T") not in known
    ]
    if not lost:
        return
    by_bytes = _by_bytes(known)
    taken = {str(value.name) for value in _values(graph)}
    for value in lost:
        tensor = value.const_value
        if tensor is None:
            continue
        key = hashlib.sha256(tensor.tobytes()).digest()
        name = next((name for name in by_bytes.get(key, []) if name not in taken), None) or _constant_name(value, taken)
        taken.add(name)
        value.name = name


def _by_bytes(known: dict[str, torch.Tensor]) -> dict[bytes, list[str]]:
    """Names of the parameters by the digest of their bytes, as they are (in any shape) and transposed."""
    found: dict[bytes, list[str]] = {}
    for name, tensor in known.items():
        array = tensor.detach().cpu().contiguous()
        if array.dtype.is_floating_point and array.element_size() > 2:
            found.setdefault(hashlib.sha256(array.numpy().tobytes()).digest(), []).append(name)
            if array.dim() == 2:
                found.setdefault(hashlib.sha256(array.numpy().T.tobytes()).digest(), []).append(f"{name}.T")
    return found


def _constant_name(value: ir.Value, taken: set[str]) -> str:
    """A name for a constant that is no parameter: after the node that reads it first."""
    name = str(value.name)
    if not re.fullmatch(r"val_\d+", name):
        return name
    reader = next((use.node.name for use in value.uses()), None)
    stem = f"{reader}.constant"
    return next(n for n in (stem, *(f"{stem}_{i}" for i in range(1, 10_000))) if n not in taken)


def strip_metadata(graph: ir.Model) -> None:
    """Drop what tells of this machine or this run (stack traces, paths); the scopes of the modules stay."""
    graph.metadata_props.clear()
    graph.doc_string = None
    for part in graph.graphs():
        part.metadata_props.clear()
        part.doc_string = None
        for value in (*part.inputs, *part.initializers.values()):
            value.metadata_props.clear()
        for node in part:
            scopes = node.metadata_props.get(_KEPT_METADATA)
            node.metadata_props.clear()
            if scopes is not None:
                node.metadata_props[_KEPT_METADATA] = scopes
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
