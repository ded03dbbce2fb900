"""BatchNorm in several processes: a step takes the statistics that one process would take of its samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, fx, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from trtcompress_graph.torch_view.modules import BatchNorm

from .batches import WIDE, Part

Group = Any  # distributed.ProcessGroup is not there in every build of PyTorch


def spread_norms(view: fx.GraphModule) -> None:
    """Put norms that know of the other processes in place of those of a view; all processes call it.

    Parameters, buffers and names stay. It comes before parts of the view are made.
    """
    group = distributed.new_group()  # of their own: they must not come between the gradients, which go by others' order
    for node in view.graph.nodes:
        part = view.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(part, _BatchNorm):
            view.set_submodule(node.target, PutBack(part, group))
        elif isinstance(part, BatchNorm) and all(held.op == "get_attr" for held in node.args[3:5]):
            mean, variance = (view.get_buffer(held.target) for held in node.args[3:5])
            view.set_submodule(node.target, OfGraph(part, group, (mean, variance)))


class Step:
    """Moves running statistics by the batches that processes run alone in a step; nothing where they share one.

    As in one process, they have moved before a batch runs that is too narrow for statistics of its own, which is the
    last one. All processes come to it with the forward passes before it, and none waits then for gradients of another.

    Args:
        module: with the norms.
        parts: that this process runs.
    """

    def __init__(self, module: nn.Module, parts: Sequence[Part]) -> None:
        self._norms = [part for part in module.modules() if isinstance(part, _Across)]
        self._parts = parts
        self._left = parts[0].alone and parts[0].passes > 0

    def before(self, part: Part) -> None:
        """A forward pass is about to run."""
        if part.width < WIDE:
            self._move()

    def behind(self, part: Part) -> None:
        """A forward pass was made."""
        if part is self._parts[-1]:
            self._move()

    def _move(self) -> None:
        for norm in self._norms if self._left else []:
            norm.move(self._parts[0].passes)
        self._left = False


class _Across(nn.Module):
    """What norms of both kinds do.

    Attributes:
        part: what this process runs of the step.
        share: of the new statistics in the running ones.
        moved: what passes so far add to the running statistics.
        held: the running mean and variance.
    """

    group: Group
    part: Part | None
    moved: list[Tensor] | None
    held: tuple[Tensor, Tensor]
    share: float
    eps: float

    def normalized(self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """X [N, C, ...] by the statistics of the step; in evaluation by the running ones."""
        self.held = mean, variance
        if not self.training or self.part is None:
            return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, self.eps)
        if self.part.alone:
            own = torch.zeros_like(mean), torch.zeros_like(variance)
            made = functional.batch_norm(x, own[0], own[1], scale, bias, True, self.share, self.eps)
            self._note(own, self.part)
            return made
        found: tuple[Tensor, ...] = _Normalized.apply(  # type: ignore[no-untyped-call]
            x, scale, bias, self.eps, self.part.counted > 0, self.group
        )
        mean.lerp_(found[1].to(mean.dtype), self.share)
        variance.lerp_(found[2].to(variance.dtype), self.share)
        return found[0]

    def _note(self, own: tuple[Tensor, Tensor], part: Part) -> None:
        """What this pass adds to the running statistics, when those behind it have moved them on."""
        share = (1 - self.share) ** part.later if part.counted else 0.0
        before = self.moved or [torch.zeros_like(value) for value in own]
        self.moved = [held + share * value for held, value in zip(before, own, strict=True)]

    @torch.no_grad()
    def move(self, passes: int) -> None:
        """Move the running statistics by as many passes in all processes, one behind the other."""
        moved = torch.stack(self.moved or [torch.zeros_like(value) for value in self.held])
        distributed.all_reduce(moved, group=self.group)
        for held, value in zip(self.held, moved, strict=True):
            held.mul_((1 - self.share) ** passes).add_(value)
        self.moved = None


class PutBack(_Across, _BatchNorm):
    """A norm that was put back behind a convolution; its tensors are those of `norm`."""

    def __init__(self, norm: _BatchNorm, group: Group) -> None:
        _BatchNorm.__init__(self, norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.held = self.get_buffer("running_mean"), self.get_buffer("running_var")
        self.group, self.part, self.moved, self.share = group, None, None, norm.momentum or 0.0
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """The input [N, C, ...], normalized channel by channel."""
        return self.normalized(
            input, self.weight, self.bias, self.get_buffer("running_mean"), self.get_buffer("running_var")
        )


class OfGraph(_Across, BatchNorm):
    """A norm that the graph itself has; it holds no tensors."""

    def __init__(self, norm: BatchNorm, group: Group, held: tuple[Tensor, Tensor]) -> None:
        BatchNorm.__init__(self, norm.momentum, norm.eps)
        self.held = held
        self.group, self.part, self.moved, self.share = group, None, None, norm.momentum or 0.0
        self.train(norm.training)

    def forward(self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """X [N, C, ...], normalized channel by channel."""
        return self.normalized(x, scale, bias, mean, variance)


class _Normalized(torch.autograd.Function):
    """A batch by mean and variance over all processes, of which each may hold another number of samples."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, bias: Tensor, eps: float, counts: bool, group: Group
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The batch, its mean and its unbiased variance; a process that does not count adds nothing to these."""
        wide, axes = x.float(), _axes(x)
        variance, mean = torch.var_mean(wide, axes, correction=0)
        size = x.numel() // x.size(1) if counts else 0
        mean, variance, total = _pooled(mean.double(), variance.double(), size, group)
        ctx.save_for_backward(x, scale, mean.float(), (variance + eps).rsqrt().float(), total)
        ctx.counts, ctx.group = counts, group
        made = functional.batch_norm(wide, mean.float(), variance.float(), scale, bias, False, 0.0, eps).to(x.dtype)
        unbiased = variance * total / (total - 1).clamp_min(1)
        ctx.mark_non_differentiable(mean, unbiased)
        return made, mean, unbiased

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Through the statistics too: each sample moves those of all processes."""
        x, scale, mean, factor, total = ctx.saved_tensors
        grad, axes = grads[0].float(), _axes(x)
        shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        normed = (x.float() - mean.view(shape)) * factor.view(shape)
        of_bias, of_scale = grad.sum(axes), (grad * normed).sum(axes)
        sums = torch.stack([of_bias, of_scale]).double()
        distributed.all_reduce(sums, group=ctx.group)
        if ctx.counts:
            first, second = (sums / total).float()
            grad = grad - first.view(shape) - normed * second.view(shape)
        of_x = grad * (scale.float() * factor).view(shape)
        return of_x.to(x.dtype), of_scale.to(scale.dtype), of_bias.to(scale.dtype), None, None, None


def _axes(x: Tensor) -> list[int]:
    return [axis for axis in range(x.dim()) if axis != 1]


def _pooled(mean: Tensor, variance: Tensor, size: int, group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and number over all processes, from those of each."""
    mine = torch.cat([mean, variance, mean.new_full((1,), size)])
    found = [torch.empty_like(mine) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(found, mine, group=group)
    held = torch.stack(found)
    (means, variances), sizes = held[:, :-1].chunk(2, 1), held[:, -1:]
    total = sizes.sum()
    mean = (sizes * means).sum(0) / total
    return mean, (sizes * (variances + (means - mean).square())).sum(0) / total, total
