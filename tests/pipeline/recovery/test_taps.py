"""Inner tensors of a view, and parts of it."""

from __future__ import annotations

import torch
from torch import fx, nn

from tiny_views import view
from trtcompress.recovery.job import load_weights, weights_of
from trtcompress.recovery.taps import answered, block, named_nodes, tapped
from trtcompress.recovery.thrift import frugal, share_equal
from trtcompress.recovery.zeros import keep_zeros

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def test_inner_tensors_by_name():
    whole = view(8, 0)
    found = tapped(whole, ("y",), ("hidden", "y"))(X)
    assert list(found) == ["hidden", "y"]
    assert torch.equal(found["y"], whole(X))
    assert torch.equal(found["hidden"], torch.tanh(whole.first(X)))


def test_what_is_not_asked_for_is_not_computed_and_weights_are_the_views_own():
    whole = view(8, 0)
    part = tapped(whole, ("y",), ("hidden",))
    assert [name for name, _ in part.named_parameters()] == ["first.weight", "first.bias"]
    part(X)["hidden"].sum().backward()
    assert whole.first.weight.grad is not None
    assert part.first.weight is whole.first.weight


def test_passes_of_several_sizes_are_put_together():
    whole = view(8, 0)
    found = answered(whole, ("y",), ("hidden", "y"), [(X[:3],), (X[3:],)])
    assert torch.allclose(found["y"], whole(X))
    assert torch.allclose(found["hidden"], torch.tanh(whole.first(X)))


def test_passes_are_put_together_where_the_first_input_has_no_axes():
    class Scaled(nn.Module):
        def forward(self, gain: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return gain * x

    gains = torch.arange(5.0)
    found = answered(fx.symbolic_trace(Scaled()), ("y",), ("y",), [(gains[i], X[i : i + 1]) for i in range(5)])
    assert torch.equal(found["y"], gains[:, None] * X)


def test_a_block_between_two_tensors():
    whole = view(8, 0)
    nodes = named_nodes(whole)
    first = block(whole, (), nodes["hidden"])
    last = block(whole, ("hidden",), nodes["y"])
    assert (first.reads, last.reads) == (("x",), ("hidden",))
    assert torch.equal(last({"hidden": first({"x": X})}), whole(X))
    assert [name for name, _ in last.named_parameters()] == ["part.last.weight", "part.last.bias"]


def test_a_frugal_view_has_the_same_numbers_and_gradients():
    whole, other = view(8, 0), view(8, 0)
    tapped(whole, ("y",), ("y",))(X)["y"].square().sum().backward()
    thrifty = frugal(tapped(other, ("y",), ("y",)))
    found = thrifty(X)["y"]
    assert torch.equal(found, whole(X))
    found.square().sum().backward()
    for (name, one), (_, two) in zip(whole.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(one.grad, two.grad), name
    assert {id(p) for p in thrifty.parameters()} == {id(p) for p in other.parameters()}


def test_equal_buffers_are_held_once():
    one, other = view(8, 0), view(8, 1)
    for module in (one, other):
        module.register_buffer("table", torch.ones(100))
        module.register_buffer("own", torch.randn(3))
    assert share_equal(one, other) == 400
    assert one.table is other.table
    assert one.own is not other.own


def test_zeros_of_a_sparse_weight_get_no_gradient():
    module = view(8, 0)
    with torch.no_grad():
        module.first.weight[:, ::2] = 0
    assert keep_zeros(module) == 1
    module(X).square().sum().backward()
    assert float(module.first.weight.grad[:, ::2].abs().max()) == 0
    assert float(module.first.weight.grad[:, 1::2].abs().min()) > 0
    assert float(module.last.weight.grad.abs().min()) > 0


def test_a_matrix_of_nothing_but_zeros_is_trained() -> None:
    module = nn.Linear(4, 1)
    with torch.no_grad():
        module.weight.zero_()
    assert keep_zeros(module) == 0
    module(torch.ones(2, 4)).sum().backward()
    assert module.weight.grad is not None
    assert (module.weight.grad != 0).all()


def test_running_statistics_are_kept_with_the_weights() -> None:
    """A training loop of the user's own may move them."""
    trained = fx.symbolic_trace(nn.Sequential(nn.BatchNorm1d(3)))
    trained.train()(torch.randn(8, 3) + 5)
    fresh = fx.symbolic_trace(nn.Sequential(nn.BatchNorm1d(3)))
    load_weights(fresh, weights_of(trained))
    assert torch.equal(fresh.eval()(torch.ones(2, 3)), trained.eval()(torch.ones(2, 3)))
