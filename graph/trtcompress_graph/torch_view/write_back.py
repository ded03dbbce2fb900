"""From a trained view back into the ONNX graph that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, overload

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from ..errors import ModelError, UsageError
from ..load import copy_model, read_model, save_ir, to_proto
from ..model import Model
from .module import META
from .names import initializer_name
from .prepare import Source, copied, load, stored, told_apart, wiring
from .quantized import dequantize, quantize
from .state import Grid, Restored
from .tensors import to_array, to_tensor
from .tied import bias_scale, bias_scales, counting_scale

_HINT = "give the model that this module was made from"


def learned_scales(module: fx.GraphModule) -> tuple[Tensor, ...]:
    """The scales of a module that are trained, each once; none but in a view that was made with `learn_scales`."""
    names: tuple[str, ...] = module.meta.get(META, {}).get("scales", ())
    return tuple(module.get_parameter(name) for name in names)


@overload
def to_onnx(module: fx.GraphModule, *, like: Source, out: None = None) -> onnx.ModelProto: ...


@overload
def to_onnx(module: fx.GraphModule, *, like: Source, out: str | Path) -> Model: ...


def to_onnx(module: fx.GraphModule, *, like: Source, out: str | Path | None = None) -> onnx.ModelProto | Model:
    """Put the weights of a view into the graph that it came from.

    Nodes, names and all that was not trained stay; where nothing was trained the file is equal byte for byte. Integer
    weights get the integers that the view rounded to, and a BatchNorm that was put back goes into its convolution.

    Args:
        module: what `to_torch` returned (a copy, or one that was pickled, will do).
        like: the model that it came from: its file, or what else `to_torch` takes.
        out: the file to write; without it the graph stays in memory, as `torch.onnx.export` keeps it.

    Returns:
        The graph as `onnx.ModelProto`, which holds its weights (protobuf gives no bytes of more than 2 GiB of them);
        with `out` the description of the file: its path, digest, inputs and outputs.

    Raises:
        ModelError: the module is no view, `like` is not what it came from, or what was trained is not finite.
        UsageError: `out` is a folder.
    """
    module = getattr(module, "_orig_mod", module)  # what `torch.compile` was given
    if META not in getattr(module, "meta", {}):
        kind = type(module).__name__
        raise ModelError(
            f"this module ({kind}) was not made by to_torch",
            where="to_onnx",
            hint="give what to_torch returned, with its weights trained; of what wraps it, its `.module`",
        )
    if out is not None and Path(out).is_dir():
        raise UsageError(f"'{out}' is a folder", where="out", hint=f"name a file, such as {Path(out) / 'model.onnx'}")
    source = read_model(Path(like)) if isinstance(like, (str, Path)) else like
    graph, where = load(source)
    if wiring(graph) != module.meta[META]["wiring"]:
        raise ModelError("its nodes are others than those of the module", where=where, hint=_HINT)
    changed = changes(module, graph, where)
    for name, holder in stored(graph):
        if name in changed:
            _replace(holder, name, changed[name])
    if out is None:
        return to_proto(graph) if changed else _as_it_is(source)
    if changed or isinstance(source, onnx.ModelProto):
        return save_ir(graph, Path(out))
    return copy_model(source, Path(out))


def _as_it_is(source: onnx.ModelProto | Model) -> onnx.ModelProto:
    """A copy in memory of what nobody trained."""
    if isinstance(source, Model):
        return onnx.load(source.path, format="protobuf")
    return copied(source)


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
            if _broke(tensor, before[name]):
                hint = "lower the learning rate; float16 weights need one that their few digits bear, or float32 ones"
                raise ModelError("what was trained is not finite", where=f"{where}: '{name}'", hint=hint)
            found[name] = new
    return found


def _broke(tensor: Tensor, before: ir.TensorProtocol) -> bool:
    """Whether a tensor that was finite no longer is."""
    return not bool(torch.isfinite(tensor.float()).all()) and bool(np.isfinite(before.numpy().astype(np.float64)).all())


def _tensors(graph: ir.Model) -> dict[str, ir.TensorProtocol]:
    """What is stored under a name of its own, by that name."""
    found: dict[str, ir.TensorProtocol] = {}
    held = stored(graph)
    apart = told_apart(held)
    for name, holder in held:
        if name not in apart:
            continue
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
    low = -(1 << (grid.bits - 1)) if integers.dtype.is_signed else 0
    high = low + (1 << grid.bits) - 1
    made = quantize(tensor, new_scale, zero, low, high, integers.dtype, grid.axis, grid.block)
    same = (tensor == start) & bool(torch.equal(new_scale, scale))
    return to_array(torch.where(same, integers, made), old.dtype)


def _scales(graph: ir.Model, held: Mapping[str, Tensor], before: Mapping[str, ir.TensorProtocol]) -> dict[str, Tensor]:
    """Learned scales as they count: greater than 0, and that of a bias the product of those of input and weight."""
    names = {str(node.inputs[1].name) for node in graph.graph.all_nodes() if node.op_type in _SCALED and node.inputs[1]}
    stored_as = {name: to_tensor(before[name].numpy(), before[name].dtype) for name in names if name in before}
    found = {
        name: counting_scale(held[name])
        for name, old in stored_as.items()
        if name in held and not torch.equal(held[name], old)
    }
    for bias, values in bias_scales(graph.graph).items():
        factors = [str(value.name) for value in values]
        if stored_as.keys() >= {bias, *factors} and any(name in found for name in factors):
            made = bias_scale(*(found.get(name, stored_as[name]) for name in factors))
            found[bias] = made.reshape(stored_as[bias].shape)
    return found


_SCALED = ("QuantizeLinear", "DequantizeLinear")


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
        tensor = ir.Tensor(np.asarray(array, order="C"), dtype=holder.const_value.dtype, name=name)
        holder.const_value = tensor
        return
    old = holder.attributes["value"].as_tensor()
    made = ir.Tensor(np.asarray(array, order="C"), dtype=old.dtype, name=old.name)
    holder.attributes["value"] = ir.AttrTensor("value", made)
