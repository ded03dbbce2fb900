"""BatchNormalization and Dropout: they know training from evaluation."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from ..builder import Builder, output_count
from ..modules import BatchNorm, Dropout
from ..numbers import only
from ..registry import op


@op("BatchNormalization", build=True, weights=(1, 2), buffers=(3, 4))
def batch_norm(builder: Builder, node: ir.Node) -> Any:
    """By the running statistics; in training by those of the batch."""
    args = [builder.tensor(held) for held in builder.inputs(node)]
    named = {key: attribute.value for key, attribute in node.attributes.items()}
    momentum, eps = named.get("momentum", 0.9), named.get("epsilon", 1e-5)
    if named.get("training_mode", 0):
        made = builder.tracer.call(trained_norm, *args, momentum=momentum, eps=eps)
        return tuple(made[i] for i in range(output_count(node)))
    return builder.call_module("batch_norm", BatchNorm(1 - momentum, eps), *args)


def trained_norm(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """By the statistics of the batch, and the running ones moved, as ONNX does where a graph itself is in training."""
    dims = [axis for axis in range(x.dim()) if axis != 1]
    now, spread = x.mean(dims), x.var(dims, correction=0)
    made = torch.nn.functional.batch_norm(x, None, None, scale, bias, True, 0.0, eps)
    return made, mean * momentum + now * (1 - momentum), variance * momentum + spread * (1 - momentum)


@op("Dropout", build=True, ints=(1, 2))
def dropout(builder: Builder, node: ir.Node) -> Any:
    """Elements dropped at random in training, or where the model itself says so."""
    x, *rest = builder.inputs(node)
    ratio = 0.5 if not rest or rest[0] is None else only(builder.numbers(rest[0]))
    always = False if len(rest) < 2 or rest[1] is None else only(builder.numbers(rest[1]))
    masked = output_count(node) > 1
    made = builder.call_module("dropout", Dropout(masked), builder.tensor(x), ratio, always)
    if not masked:
        return made
    return made[0], made[1]
