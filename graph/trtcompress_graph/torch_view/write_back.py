"""From a trained view back into the ONNX file that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from ..errors import MissingPathError, ModelError
from ..load import copy_model, read_model, save_ir
from ..model import Model
from .module import META
from .names import initializer_name
from .prepare import load, stored
from .quantized import dequantize, quantize
from .state import Grid, Restored
from .tensors import to_array, to_tensor

_HINT = "give the model that this module was made from"


def learned_scales(module: fx.GraphModule) -> tuple[Tensor, ...]:
    """The scales of a module that are trained, each once; none but in a view that was made with `learn_scales`."""
    names: tuple[str, ...] = module.meta.get(META, {}).get("scales", ())
    return tuple(module.get_parameter(name) for name in names)


def to_onnx(module: fx.GraphModule, *, like: Model | str | Path, out: str | Path) -> Model:
    """Write the weights of a view into the graph that it came from.

    Nodes, names and all that was not trained stay; where nothing was trained the file is equal byte for byte. Integer
    weights get the integers that the view rounded to, and a BatchNorm that was put back goes into its convolution.

    Args:
        module: what `to_torch` returned (a copy, or one that was pickled, will do).
        like: the model that it came from.
        out: the file to write.

    Raises:
        ModelError: the module is no view, or `like` is not what it came from.
    """
    if META not in module.meta:
        raise ModelError("this module was not made by to_torch", where=str(out), hint="call to_torch first")
    source = like if isinstance(like, Model) else read_model(Path(like))
    if not source.path.exists():
        raise MissingPathError("no such file", where=str(source.path))
    graph, where = load(source)
    changed = changes(module, graph, where)
    if not changed:
        return copy_model(source, Path(out))
    for name, holder in stored(graph):
        if name in changed:
            _replace(holder, name, changed[name])
    return save_ir(graph, Path(out))


def changes(module: fx.GraphModule, graph: ir.Model, where: str) -> dict[str, NDArray[Any]]:
    """The stored tensors that are no longer what they were, by name."""
    facts: Mapping[str, Any] = module.meta[META]
    grids: dict[str, Grid] = facts["grids"]
    before = _tensors(graph)
    held = {initializer_name(name): tensor.detach() for name, tensor in module.state_dict().items()}
    inside = tuple(norm.prefix for norm in facts["restored"])
    held = {name: tensor for name, tensor in held.items() if not name.startswith(inside)} if inside else held
    held |= _folded(module, facts["restored"])
    held |= {name: held[first] for name, first in facts["twins"].items() if first in held}
    held |= _scales(graph, held, before)
    found: dict[str, NDArray[Any]] = {}
    for name, tensor in held.items():
        if name not in before:
            raise ModelError("the model has no such tensor", where=f"{where}: '{name}'", hint=_HINT)
        grid = grids.get(name)
        new = _plain(tensor, before[name]) if grid is None else _integers(tensor, name, grid, held, before)
        if new.shape != before[name].numpy().shape:
            raise ModelError(f"has the shape {new.shape} in the module", where=f"{where}: '{name}'", hint=_HINT)
        if new.tobytes() != before[name].numpy().tobytes():
            found[name] = new
    return found


def _tensors(graph: ir.Model) -> dict[str, ir.TensorProtocol]:
    """What is stored, by name."""
    found: dict[str, ir.TensorProtocol] = {}
    for name, holder in stored(graph):
        if isinstance(holder, ir.Value):
            if holder.const_value is not None:
                found[name] = holder.const_value
        elif "value" in holder.attributes:
            found[name] = holder.attributes["value"].as_tensor()
    return found


def _plain(tensor: Tensor, before: ir.TensorProtocol) -> NDArray[Any]:
    return to_array(tensor, before.dtype)


def _integers(
    tensor: Tensor, name: str, grid: Grid, held: Mapping[str, Tensor], before: Mapping[str, ir.TensorProtocol]
) -> NDArray[Any]:
    """The integers of a master; those that neither it nor its scale moved are the old ones."""
    old = before[name]
    integers = to_tensor(old.numpy(), old.dtype)
    scale = to_tensor(before[grid.scale].numpy(), before[grid.scale].dtype)
    zero = None
    if grid.zero_point:
        zero = to_tensor(before[grid.zero_point].numpy(), before[grid.zero_point].dtype)
    new_scale = held.get(grid.scale, scale).abs()
    start = dequantize(integers, scale, zero, grid.axis, grid.block)
    bits, signed = old.dtype.bitwidth, integers.dtype.is_signed
    low = -(1 << (bits - 1)) if signed else 0
    made = quantize(
        tensor,
        new_scale,
        zero,
        low,
        low + (1 << bits) - 1,
        integers.dtype,
        grid.axis,
        grid.block,
    )
    same = (tensor == start) & bool(torch.equal(new_scale, scale))
    return to_array(torch.where(same, integers, made), old.dtype)


def _scales(graph: ir.Model, held: Mapping[str, Tensor], before: Mapping[str, ir.TensorProtocol]) -> dict[str, Tensor]:
    """Learned scales as they count: greater than 0, and that of a bias the product of those of input and weight."""
    nodes = list(graph.graph.all_nodes())
    scaled = {node: str(node.inputs[1] and node.inputs[1].name) for node in nodes if node.op_type in _SCALED}
    found = {
        name: held[name].abs().clamp(min=torch.finfo(held[name].dtype).tiny)
        for name in scaled.values()
        if name in held and not torch.equal(held[name], to_tensor(before[name].numpy(), before[name].dtype))
    }
    for node in nodes:
        makers = [value.producer() if value is not None else None for value in node.inputs[:3]]
        x, weight, bias = ([scaled.get(maker, "") if maker else "" for maker in makers] + ["", "", ""])[:3]
        if node.op_type in _BIASED and (x in found or weight in found) and {x, weight, bias} <= held.keys():
            factors = [found.get(name, held[name]) for name in (x, weight)]
            found[bias] = (factors[0] * factors[1]).reshape(held[bias].shape)
    return found


_SCALED = ("QuantizeLinear", "DequantizeLinear")
_BIASED = ("Conv", "ConvTranspose", "Gemm")


def _folded(module: fx.GraphModule, norms: tuple[Restored, ...]) -> dict[str, Tensor]:
    """Weights and biases of convolutions with the norms behind them, for those that changed."""
    found: dict[str, Tensor] = {}
    state = {initializer_name(name): tensor.detach().double() for name, tensor in module.state_dict().items()}
    for norm in norms:
        part = module.get_submodule(norm.prefix)
        scale, shift = part.get_parameter("weight").double(), part.get_parameter("bias").double()
        mean, spread = part.get_buffer("running_mean").double(), part.get_buffer("running_var").double()
        factor = (scale / (spread + float(part.eps)).sqrt()).detach()  # type: ignore[arg-type]
        weight = state[norm.weight]
        found[norm.weight] = weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
        found[norm.bias] = shift.detach() - mean * factor
    return found


def _replace(holder: ir.Value | ir.Node, name: str, array: NDArray[Any]) -> None:
    """Put a tensor in the place of another, of the same type."""
    if isinstance(holder, ir.Value):
        assert holder.const_value is not None
        tensor = ir.Tensor(np.ascontiguousarray(array), dtype=holder.const_value.dtype, name=name)
        holder.const_value = tensor
        return
    old = holder.attributes["value"].as_tensor()
    made = ir.Tensor(np.ascontiguousarray(array), dtype=old.dtype, name=old.name)
    holder.attributes["value"] = ir.AttrTensor("value", made)
