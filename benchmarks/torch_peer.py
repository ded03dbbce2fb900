"""Torch-Pruning as a peer: L2 norm, the same share of every width, with or without BatchNorm recalibrated."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from search import greatest_within
from tasks import Arrays, Task

HERE = Path(__file__).parent
_written: list[tuple[nn.Module, dict[str, Tensor]]] = []


def cut_model() -> tuple[nn.Module, dict[str, Tensor]]:
    """The cut module, for the exporter."""
    return _written[-1]


def torch_pruning(task: Task, kept: float, samples: Iterable[Arrays], out: Path, *, recalibrate: bool) -> None:
    """Cut a task's module to `kept` of its multiply-accumulates and write it as ONNX."""
    held = list(samples)
    cut, example = cut_module(task, kept, held)
    if recalibrate:
        recalibrate_batch_norm(cut, [tensors(sample) for sample in held])
    write_module(task, cut, example, out)


def cut_module(task: Task, kept: float, samples: Iterable[Arrays]) -> tuple[nn.Module, dict[str, Tensor]]:
    """A task's module cut to `kept` of its multiply-accumulates, and inputs of two samples."""
    if task.module is None:
        raise SystemExit("needs the PyTorch module, and this model is an ONNX file")
    module = task.module()
    first = tensors(next(iter(samples)))
    example = {name: value[:1] for name, value in first.items()}
    full = macs(module, example)
    cut, _ = greatest_within(lambda ratio: _cut(task, module, example, ratio), lambda m: macs(m, example) / full, kept)
    # Two samples: an axis of length 1 would be taken for one that never changes
    return cut, {name: torch.cat([value[:1]] * 2) for name, value in first.items()}


def write_module(task: Task, module: nn.Module, example: dict[str, Tensor], out: Path) -> None:
    """Export a module as our own export does."""
    from trtcompress.cli.options import axes
    from trtcompress.exporting import export_model

    _written.append((module.eval(), example))
    export_model("torch_peer:cut_model", base=HERE, axes=axes(task.axes), samples=(), trust_pickle=False, out=out)


def tensors(sample: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in sample.items()}


def _cut(task: Task, module: nn.Module, example: dict[str, Tensor], ratio: float) -> nn.Module:
    module = copy.deepcopy(module)
    spared = [m for name, m in module.named_modules() if any(fnmatch.fnmatch(name, glob) for glob in task.spared)]
    pruner = tp.pruner.MagnitudePruner(
        module,
        example,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=spared,
        num_heads=task.heads(module) if task.heads else {},
        forward_fn=lambda m, feed: m(**feed),
    )
    pruner.step()
    if task.settle:
        task.settle(module)
    return module


def macs(module: nn.Module, example: dict[str, Tensor]) -> int:
    """Multiply-accumulates of convolutions and linear layers."""
    total = 0

    def count(layer: Any, _: Any, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        module(**example)
    for hook in hooks:
        hook.remove()
    return total


def recalibrate_batch_norm(module: nn.Module, feeds: Iterable[dict[str, Tensor]]) -> None:
    """Mean and variance of every BatchNorm anew, as the mean over the batches."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        raise SystemExit("there is no BatchNorm to recalibrate in this model")
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for feed in feeds:
            module(**feed)
