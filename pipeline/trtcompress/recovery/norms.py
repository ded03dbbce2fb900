"""BatchNorm in training: put back behind the convolutions of the student, by the statistics of the batch in each step.

Training with it takes higher rates and generalizes better than training of convolutions that norms were folded into
(arXiv 1502.03167, 1806.02375). It is settled on samples, so that the first step meets the student as it is, and what is
written has it folded again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trtcompress_graph.torch_view import load_plain, settle_batchnorm
from trtcompress_graph.torch_view.module import META
from trtcompress_graph.torch_view.modules import BatchNorm

from .across import OfGraph, PutBack
from .batches import WIDE, Part
from .settings import planned_steps

if TYPE_CHECKING:
    from .job import Job

FOLLOWED = 50
"""Steps in which running statistics forget all but half a percent of what they were."""

SETTLED = 512
"""Samples that norms are settled on, at the most."""


def takes_norms(job: Job) -> bool:
    """Whether norms take the statistics of the batch: if they can, and by themselves not if steps are few."""
    if why_not(job):
        return False
    steps = planned_steps(job.training, job.batches.per_epoch)
    return steps is None or steps >= FOLLOWED if job.training.norms is None else job.training.norms


def why_not(job: Job) -> str:
    """What hinders norms to take the statistics of the batch, in words; empty: nothing."""
    training, pool = job.training, job.pool
    size = min(training.batch, training.batch if pool.fixed is None else pool.fixed)
    if size < WIDE:
        return f"it takes {WIDE} samples that are run together, and these are {size}"
    return "with checkpoint_activations tensors are computed twice" if training.checkpoint_activations else ""


def view_with_norms(job: Job, weights: Mapping[str, Tensor] | None) -> fx.GraphModule:
    """The student with a norm behind each convolution that has none; they change nothing yet.

    Args:
        job: the training.
        weights: of a view without norms, which count instead of those of the file.
    """
    view = job.view(norms=True)
    if weights is not None:
        load_plain(view, weights)
    return view


def settle(view: fx.GraphModule, job: Job, device: torch.device) -> None:
    """Set the statistics of the norms that were put back, so that the first step meets the student as it is.

    Costs a pass of `SETTLED` samples where there are such norms.
    """
    if view.meta[META]["restored"]:
        settle_batchnorm(view, _some(job, device))


def _some(job: Job, device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    left, batches = SETTLED, job.batches
    for step in range(batches.per_epoch):
        for group, rows in batches.at(step):
            if left <= 0:
                return
            arrays = job.pool.read(group, rows)
            yield tuple(torch.from_numpy(arrays[spec.name]).to(device) for spec in job.pool.inputs)
            left -= len(rows)


def statistics(module: nn.Module) -> dict[str, Tensor]:
    """Running means and variances of the norms of a view, those of the graph's own too, by name."""
    held = dict(module.named_buffers())
    put_back = {name for name, part in module.named_modules() if isinstance(part, _BatchNorm)}
    names = [f"{name}.{leaf}" for name in sorted(put_back) for leaf in ("running_mean", "running_var")]
    return {name: held[name] for name in (*names, *own_statistics(module))}


def own_statistics(module: nn.Module) -> tuple[str, ...]:
    """Names of the buffers that the graph's own norms move."""
    if not isinstance(module, fx.GraphModule):
        return ()
    norms = [
        node
        for node in module.graph.nodes
        if node.op == "call_module" and isinstance(module.get_submodule(node.target), BatchNorm)
    ]
    return tuple(dict.fromkeys(str(arg.target) for node in norms for arg in node.args[3:5] if arg.op == "get_attr"))


@contextmanager
def by_batch(module: nn.Module, count: int, part: Part | None = None) -> Iterator[None]:
    """Norms take the statistics of the batch, where it has samples enough, and move their running ones.

    Args:
        module: with the norms.
        count: samples of the batch, those of other processes that share it included.
        part: what this process runs of it, for norms that know of the others.
    """
    found = (held for held in module.modules() if isinstance(held, (_BatchNorm, BatchNorm)))
    norms = list(found) if count >= WIDE else []
    for norm in norms:
        norm.train()
        if isinstance(norm, (PutBack, OfGraph)):
            norm.part = part
    try:
        yield
    finally:
        for norm in norms:
            norm.eval()
