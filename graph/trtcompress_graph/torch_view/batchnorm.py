"""BatchNorm put back behind convolutions that it was folded into, so that training has it again.

It changes nothing until its statistics are set (`settle_batchnorm`) or trained; `to_onnx` folds it into the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch import Tensor, fx, nn

from ..errors import UsageError
from .module import META
from .names import initializer_name
from .roles import Role
from .state import Restored

if TYPE_CHECKING:
    from .builder import Builder

EPS = 2.0**-16
"""A power of two: with a variance of 1 - EPS the norm divides by exactly 1."""


def restore(builder: Builder, node: ir.Node, results: Any) -> Any:
    """Put a norm behind a convolution that has a bias and no norm yet."""
    if not (builder.state.options.restore_batchnorm and builder.outer is None and node.op_type == "Conv"):
        return results
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    followed = any(user.op_type == "BatchNormalization" for user, _ in node.outputs[0].uses())
    held = [v is not None and builder.state.roles.get(str(v.name)) is Role.WEIGHT for v in (weight, bias)]
    if followed or not all(held) or any(len(list(v.uses())) > 1 for v in (weight, bias) if v is not None):
        return results
    assert weight is not None
    assert bias is not None
    call = results.node
    call.args = (*call.args[:2], None, *call.args[3:])  # the norm takes the bias over
    norm = identity_norm(builder.state.stored(bias), len(builder.state.stored(weight).shape) - 2)
    name = builder.state.module(f"batchnorm.{len(builder.state.restored)}", norm)
    builder.state.restored.append(Restored(str(weight.name), str(bias.name), name))
    return builder.tracer.emit("call_module", name, results)


def identity_norm(bias: Tensor, axes: int) -> nn.Module:
    """A norm that does no more than to add a bias, in evaluation."""
    kinds: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    norm = kinds[axes](len(bias), eps=EPS, dtype=bias.dtype)
    norm.get_buffer("running_var").fill_(1 - EPS)
    with torch.no_grad():
        norm.get_parameter("bias").copy_(bias)
    return norm


def settle_batchnorm(module: fx.GraphModule, batches: Iterable[tuple[Tensor, ...]]) -> None:
    """Set the statistics of the norms that were put back from data, and their scale and bias so that nothing changes.

    Without this the first step in training mode would normalize what the network did not expect to be normalized.

    Args:
        module: a view made with `restore_batchnorm=True`.
        batches: arguments of the module, one call each.

    Raises:
        UsageError: there are norms, and no batch.
    """
    norms = [part for name, part in module.named_modules() if name.startswith("batchnorm.") and _is_norm(part)]
    sums = {norm: _Sums() for norm in norms}
    hooks = [norm.register_forward_pre_hook(sums[norm].add) for norm in norms]
    was_training = module.training
    try:
        with torch.no_grad():
            module.eval()
            for batch in batches:
                module(*batch)
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    if norms and not any(held.count for held in sums.values()):
        raise UsageError("there is no batch", where="batches", hint="give tuples of inputs, as the module is called")
    for norm, held in sums.items():
        held.settle(norm)


def _is_norm(part: nn.Module) -> bool:
    return isinstance(part, nn.modules.batchnorm._BatchNorm)


class _Sums:
    """Sums over all but the channels."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Count in a batch [N, C, ...]."""
        rows = args[0].double().transpose(0, 1).flatten(1)
        self.count += rows.size(1)
        self.total = self.total + rows.sum(1)
        self.squares = self.squares + rows.square().sum(1)

    def settle(self, norm: nn.Module) -> None:
        """Write mean and variance, and scale and bias with which the norm gives what it gave before."""
        if not self.count:
            return
        with torch.no_grad():
            mean = torch.as_tensor(self.total) / self.count
            variance = (torch.as_tensor(self.squares) / self.count - mean.square()).clamp(min=0)
            before, spread = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            scale, bias = norm.get_parameter("weight"), norm.get_parameter("bias")
            factor = scale.double() / (spread.double() + EPS).sqrt()
            bias.copy_(bias + (mean - before) * factor)
            scale.copy_(factor * (variance + EPS).sqrt())
            before.copy_(mean)
            spread.copy_(variance)


def load_plain(module: fx.GraphModule, weights: Mapping[str, Tensor]) -> None:
    """Put the weights of a view without norms into one whose norms were put back and are not settled yet.

    Args:
        module: made with `restore_batchnorm=True`.
        weights: state of a view of the same model, made without.
    """
    norms = {norm.bias: norm.prefix for norm in module.meta[META]["restored"]}
    state = module.state_dict()
    with torch.no_grad():
        for key, value in weights.items():
            prefix = norms.get(initializer_name(key))
            state[key if prefix is None else f"{prefix}.bias"].copy_(value)
