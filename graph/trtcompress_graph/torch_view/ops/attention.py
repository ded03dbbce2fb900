"""Attention and what belongs to it."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from ..registry import op
from ..tensors import torch_type


@op("RotaryEmbedding")
def rotary_embedding(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None = None,
    /,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """Pairs of features turned by angles that grow with the position (arXiv 2104.09864)."""
    flat = x.dim() == 3
    heads = x.reshape(x.size(0), x.size(1), num_heads, -1) if flat else x.transpose(1, 2)
    count = rotary_embedding_dim or heads.size(-1)
    turned, rest = heads[..., :count], heads[..., count:]
    cos, sin = (t if positions is None else t[positions] for t in (cos, sin))
    cos, sin = (t[..., : count // 2].unsqueeze(2) for t in (cos, sin))
    one, other = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    real, imaginary = cos * one - sin * other, sin * one + cos * other
    pairs = torch.stack([real, imaginary], -1).flatten(-2) if interleaved else torch.cat([real, imaginary], -1)
    made = torch.cat([pairs, rest], -1)
    return made.reshape(x.shape) if flat else made.transpose(1, 2)


@op("Attention")
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
    /,
    *,
    is_causal: int = 0,
    kv_num_heads: int = 0,
    q_num_heads: int = 0,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    left_window_size: int = -1,
    right_window_size: int = -1,
    outputs: int = 1,
) -> tuple[Tensor | None, ...]:
    """Scaled dot products; heads that share keys; with what came before; also the keys, the values and the scores."""
    flat = q.dim() == 3
    if flat:
        q, k, v = _heads(q, q_num_heads), _heads(k, kv_num_heads), _heads(v, kv_num_heads)
    before = 0 if past_key is None else past_key.size(2)
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    groups = q.size(1) // k.size(1)
    keys, values = (t if groups == 1 else t.repeat_interleave(groups, 1) for t in (k, v))
    bias = _bias(q, keys, mask, lengths, before, is_causal, (left_window_size, right_window_size))
    if outputs < 4 and not softcap and (softmax_precision is None or q.dtype == torch.float32):
        made = functional.scaled_dot_product_attention(q, keys, values, bias, scale=scale)
        made = _unmasked(made, bias)
        return _joined(made) if flat else made, k, v, None
    weights, scores = _scores(q, keys, bias, scale, softcap, softmax_precision, qk_matmul_output_mode)
    made = torch.matmul(weights.to(values.dtype), values)
    return _joined(made) if flat else made, k, v, scores


def _unmasked(made: Tensor, bias: Tensor | None) -> Tensor:
    """What may look at nothing is 0."""
    if bias is None:
        return made
    blind = (bias == -torch.inf).all(-1, keepdim=True)
    return torch.where(blind, 0, made)


def _heads(x: Tensor, count: int) -> Tensor:
    return x.reshape(x.size(0), x.size(1), count, -1).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _bias(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    lengths: Tensor | None,
    before: int,
    causal: int,
    window: tuple[int, int],
) -> Tensor | None:
    """What is added to the scores: -inf where a query must not look."""
    bias = None if mask is None else _added_mask(mask, q, k.size(2))
    line = torch.arange(k.size(2), device=q.device)
    if lengths is not None:
        bias = _closed(bias, line < lengths.reshape(-1, 1, 1, 1), q)
    start = torch.as_tensor(before) if lengths is None else (lengths - q.size(2)).reshape(-1, 1, 1, 1)
    rows = torch.arange(q.size(2), device=q.device)[:, None] + start.to(q.device)
    left, right = window
    if causal:
        bias = _closed(bias, line <= rows, q)
    if left >= 0:
        bias = _closed(bias, line >= rows - left, q)
    return _closed(bias, line <= rows + right, q) if right >= 0 else bias


def _closed(bias: Tensor | None, seen: Tensor, q: Tensor) -> Tensor:
    """The bias with -inf where it is not seen."""
    zero = q.new_zeros(())
    return torch.where(seen, zero if bias is None else bias, -torch.inf).to(q.dtype)


def _added_mask(mask: Tensor, q: Tensor, length: int) -> Tensor:
    """A mask as what is added; keys behind its end are not seen."""
    if mask.dtype == torch.bool:
        mask = torch.where(mask, 0.0, -torch.inf)
    missing = length - mask.size(-1)
    return functional.pad(mask.to(q.dtype), (0, missing), value=-torch.inf) if missing > 0 else mask.to(q.dtype)


def _scores(
    q: Tensor, k: Tensor, bias: Tensor | None, scale: float | None, softcap: float, precision: int | None, mode: int
) -> tuple[Tensor, Tensor]:
    """The weights, and what the fourth output is by `qk_matmul_output_mode`."""
    root = (q.size(-1) ** -0.5 if scale is None else scale) ** 0.5
    raw = torch.matmul(q * root, (k * root).transpose(-1, -2))
    capped = torch.tanh(raw / softcap) * softcap if softcap else raw
    masked = capped if bias is None else capped + bias
    kind = masked.dtype if precision is None else torch_type(ir.DataType(precision))
    weights = torch.softmax(masked.to(kind), -1).nan_to_num(0.0).to(q.dtype)
    return weights, (raw, capped, masked, weights)[mode]
