"""Fake quantization in few passes: the numbers of QuantizeLinear and DequantizeLinear, and the gradients of LSQ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap

from trtcompress_graph.torch_view import grid
from trtcompress_graph.torch_view.grid import composed
from trtcompress_graph.torch_view.quantized import fake_quantize


def gradients(function, x, scale, grad):
    x, scale = x.detach().clone().requires_grad_(), scale.detach().clone().requires_grad_()
    made = function(x, scale)
    made.backward(grad)
    return made.detach(), x.grad, scale.grad


CLOSE = {"rtol": 1e-4, "atol": 1e-3}
"""Sums of `round(v) - v` are small beside v, whose last digits they have."""

VIEWS = {
    "every_other": (lambda x: torch.stack([x, x], -1), lambda held: held[..., 0]),
    "behind_others": (lambda x: torch.cat([x, x]), lambda held: held[len(held) // 2 :]),
    "turned": (lambda x: x.transpose(0, -1).contiguous(), lambda held: held.transpose(0, -1)),
    "repeated": (lambda x: x[:1].clone(), lambda held: held.expand(3, *held.shape[1:])),
}
"""What a tensor is made into, and the view of it that is rounded."""


@st.composite
def cases(draw):
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    seed = draw(st.integers(0, 2**16))
    channel = draw(st.booleans()) and len(shape) > 1
    bounds = draw(st.sampled_from([(-128, 127), (0, 255), (-8, 7), (-127, 127)]))
    zero = draw(st.integers(*bounds)) if draw(st.booleans()) else 0
    layout = draw(st.sampled_from(["plain", "channels_last", *VIEWS]))
    piece = draw(st.sampled_from([1, 3, 1 << 18]))
    return shape, seed, channel, bounds, zero, layout, piece


@settings(max_examples=150, deadline=None)
@given(cases())
def test_numbers_and_gradients_are_those_of_the_definition(case):
    shape, seed, channel, (low, high), zero, layout, piece = case
    chance = torch.Generator().manual_seed(seed)
    x = 60 * torch.randn(shape, generator=chance)
    if layout == "channels_last" and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    make, view = VIEWS.get(layout, (torch.clone, lambda held: held))
    x = make(x)
    count = shape[1] if channel else 1
    scale = 0.1 + torch.rand(count, generator=chance)
    scale = scale.reshape([1, count, *[1] * (len(shape) - 2)]) if channel else scale.reshape(())
    grad = torch.randn(view(x).shape, generator=chance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "PIECE", piece)
        found = gradients(lambda x, s: grid.to_grid(view(x), s, low - zero, high - zero), x, scale, grad)
    wanted = gradients(lambda x, s: composed(view(x), s, low - zero, high - zero), x, scale, grad)
    assert torch.equal(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1])
    torch.testing.assert_close(found[2], wanted[2], **CLOSE)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([0, 3, -7]))
def test_the_numbers_are_those_of_the_specification(seed, zero):
    """To the last bit, ties and values far beyond the range among them."""
    chance = np.random.default_rng(seed)
    scale = np.float32(chance.uniform(1e-3, 2))
    x = np.concatenate([chance.normal(0, 100, 64), scale * (np.arange(-9, 9) + 0.5), [0.0, -0.0]]).astype(np.float32)
    integers = np.clip(np.rint(x / scale) + zero, -128, 127)
    wanted = ((integers - zero) * scale).astype(np.float32)
    found = fake_quantize(torch.from_numpy(x), torch.tensor(scale), zero, -128, 127).numpy()
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted), "a zero of integers has no sign")


def test_large_tensors_go_piece_by_piece_as_whole_ones(monkeypatch):
    x = torch.randn(4, 32, 64, 96).contiguous(memory_format=torch.channels_last)
    scale, grad = torch.tensor(0.02), torch.randn_like(x)
    assert x.numel() > 2 * grid.PIECE
    pieces = len(list(grid._pieces(scale, x, grad)))
    assert pieces == -(-x.numel() // grid.PIECE)
    found = gradients(lambda x, s: grid.to_grid(x, s, -128, 127), x, scale, grad)
    assert found[1].stride() == x.stride()
    monkeypatch.setattr(grid, "PIECE", 1 << 40)
    whole = gradients(lambda x, s: grid.to_grid(x, s, -128, 127), x, scale, grad)
    assert all(torch.equal(one, other) for one, other in zip(found[:2], whole[:2], strict=True))
    torch.testing.assert_close(found[2], whole[2], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("channel", [False, True])
def test_types_are_those_of_the_definition(kind, channel):
    """In mixed precision tensors are halves and scales float32."""
    x = torch.randn(4, 3, 5).to(kind)
    scale = torch.full((1, 3, 1), 0.05) if channel else torch.tensor(0.05)
    grad = torch.randn(4, 3, 5).to(composed(x, scale, -128, 127).dtype)
    found = gradients(lambda x, s: grid.to_grid(x, s, -128, 127), x, scale, grad)
    wanted = gradients(lambda x, s: composed(x, s, -128, 127), x, scale, grad)
    assert [made.dtype for made in found] == [made.dtype for made in wanted]
    for one, other in zip(found[:2], wanted[:2], strict=True):  # a half holds next to nothing of `round(v) - v`
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_what_needs_no_gradient_gets_none(shape):
    x, scale = torch.randn(shape), torch.tensor(0.03)
    for needs in ((True, False), (False, True)):
        given = [tensor.clone().requires_grad_(need) for tensor, need in zip((x, scale), needs, strict=True)]
        grid.to_grid(*given, -128, 127).sum().backward()
        assert tuple(tensor.grad is not None for tensor in given) == needs
        twin = [tensor.clone().requires_grad_(need) for tensor, need in zip((x, scale), needs, strict=True)]
        composed(*twin, -128, 127).sum().backward()
        for one, other in zip(given, twin, strict=True):
            torch.testing.assert_close(one.grad, other.grad, **CLOSE)


def test_values_beyond_all_bounds_have_no_gradient():
    x, scale = torch.tensor([np.inf, -np.inf, 1e30], requires_grad=True), torch.tensor(0.03, requires_grad=True)
    grid.to_grid(x, scale, -128, 127).sum().backward()
    assert x.grad.tolist() == [0, 0, 0]
    assert scale.grad.item() == 127 - 128 + 127


def test_gradients_of_gradients():
    x = torch.randn(6, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.03, dtype=torch.float64, requires_grad=True)
    twice = []
    for function in (grid.to_grid, composed):
        (of_x, of_scale) = torch.autograd.grad(
            function(x, scale, -128, 127).square().sum(), (x, scale), create_graph=True
        )
        twice.append(torch.autograd.grad(of_x.square().sum() + of_scale, (x, scale)))
    for one, other in zip(*twice, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_what_is_compiled_computes_the_same():
    x, scale = torch.randn(3, 8, requires_grad=True), torch.tensor(0.03, requires_grad=True)
    compiled = torch.compile(lambda x, s: fake_quantize(x, s, 0, -128, 127), backend="aot_eager", fullgraph=True)
    grad = torch.randn(3, 8)
    found = gradients(compiled, x, scale, grad)
    wanted = gradients(lambda x, s: fake_quantize(x, s, 0, -128, 127), x, scale, grad)
    assert torch.equal(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1])
    torch.testing.assert_close(found[2], wanted[2], **CLOSE)


def test_gradients_of_each_sample_by_transforms():
    """`torch.func` reads PyTorch's own operators alone."""
    x, scale = torch.randn(3, 8), torch.tensor(0.03)
    found = vmap(grad(lambda x, s: fake_quantize(x, s, 0, -128, 127).sum(), argnums=1), (0, None))(x, scale)
    wanted = [gradients(lambda x, s: fake_quantize(x, s, 0, -128, 127), one, scale, torch.ones(8))[2] for one in x]
    torch.testing.assert_close(found, torch.stack(wanted), **CLOSE)


def test_neighbours_that_share_a_scale_by_blocks():
    x = torch.randn(4, 8)
    scale = torch.rand(4, 2) + 0.05
    spread = scale.repeat_interleave(4, 1)
    found = gradients(lambda x, s: fake_quantize(x, s, 0, -8, 7, axis=1, block=4), x, scale, torch.ones(4, 8))
    wanted = gradients(lambda x, s: composed(x, s.repeat_interleave(4, 1), -8, 7), x, scale, torch.ones(4, 8))
    assert torch.equal(found[0], composed(x, spread, -8, 7))
    torch.testing.assert_close(found[2], wanted[2], **CLOSE)
