"""Quantized graphs in a view: the numbers of ONNX Runtime, gradients straight through, integers written back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.numpy_helper import to_array
from torch import Tensor

from onnx_models import model, value
from trtcompress_graph.errors import ModelError
from trtcompress_graph.torch_view import learned_scales, to_onnx, to_torch
from trtcompress_graph.torch_view.quantized import fake_quantize, learned_scale

RNG = np.random.default_rng(0)
KINDS = {np.int8: (-128, 127), np.uint8: (0, 255), np.int16: (-32768, 32767), np.uint16: (0, 65535)}


def pair(name: str, x: str, axis: int | None = None) -> list[onnx.NodeProto]:
    """Q/DQ of x, with the scale and zero point of that name."""
    where = {} if axis is None else {"axis": axis}
    grid = [f"{name}_scale", f"{name}_zero"]
    return [
        helper.make_node("QuantizeLinear", [x, *grid], [f"{name}_q"], **where),
        helper.make_node("DequantizeLinear", [f"{name}_q", *grid], [f"{name}_dq"], **where),
    ]


def convolution(channels: int = 4) -> onnx.ModelProto:
    """u8 activations, s8 weights by channel, an int32 bias, and activations again."""
    scales = (RNG.random(channels).astype(np.float32) + 0.5) / 100
    weights = {
        "x_scale": np.array(0.02, np.float32),
        "x_zero": np.array(120, np.uint8),
        "w": RNG.integers(-127, 128, (channels, 3, 3, 3)).astype(np.int8),
        "w_scale": scales,
        "w_zero": np.zeros(channels, np.int8),
        "b": RNG.integers(-5000, 5000, channels).astype(np.int32),
        "b_scale": scales * np.float32(0.02),
        "b_zero": np.zeros(channels, np.int32),
        "y_scale": np.array(0.05, np.float32),
        "y_zero": np.array(100, np.uint8),
    }
    nodes = [
        *pair("x", "x"),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_dq"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "b_scale", "b_zero"], ["b_dq"], axis=0),
        helper.make_node("Conv", ["x_dq", "w_dq", "b_dq"], ["c"], pads=[1, 1, 1, 1]),
        *pair("y", "c"),
    ]
    return model(nodes, [value("x", ["n", 3, 6, 6])], [value("y_dq", ["n", channels, 6, 6])], weights, opset=20)


def runtime(proto: onnx.ModelProto, x: Tensor) -> Tensor:
    """As it is written: nothing is fused."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def saved(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(KINDS, key=lambda k: k.__name__)),
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30),
    st.floats(2**-10, 128, width=32),
    st.floats(0, 1),
)
def test_numbers_are_those_of_onnx_runtime(kind: type, numbers: list[float], scale: float, share: float) -> None:
    low, high = KINDS[kind]
    weights = {"x_scale": np.float32(scale), "x_zero": np.array(low + int(share * (high - low)), kind)}
    proto = model(pair("x", "x"), [value("x", ["n"])], [value("x_dq", ["n"])], weights, opset=21)
    proto.ir_version = 10
    x = torch.tensor(numbers)
    assert torch.equal(to_torch(proto)(x), runtime(proto, x))


def test_a_quantized_convolution_gives_the_numbers_of_onnx_runtime() -> None:
    proto, x = convolution(), torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    module = to_torch(proto)
    assert [name for name, _ in module.named_parameters()] == ["w", "b"]
    made, wanted = module(x), runtime(proto, x)
    off = (made - wanted).abs() / 0.05
    assert off.max() < 1.01  # sums in another order may round to the next integer
    assert (off > 0.5).float().mean() < 0.01


def test_gradients_go_straight_through_inside_the_range_and_nowhere_outside() -> None:
    x = torch.tensor([-100.0, -1.3, 0.0, 0.26, 1.7, 100.0], requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    fake_quantize(x, scale, 0, -20, 20).sum().backward()
    v = (x / scale).detach()
    assert torch.equal(x.grad, (v.abs() < 20).float())
    by_lsq = torch.where(v.abs() < 20, v.round() - v, v.clamp(-20, 20))
    assert torch.allclose(scale.grad, by_lsq.sum(), atol=1e-5)


def test_the_gradient_of_a_learned_scale_is_made_smaller() -> None:
    x, scale = torch.randn(10, 32), torch.tensor(0.1, requires_grad=True)
    plain = torch.autograd.grad(fake_quantize(x, scale, 0, -128, 127).square().sum(), scale)[0]
    factor = learned_scale(scale, x, 127, False)
    assert torch.equal(factor, scale)
    less = torch.autograd.grad(fake_quantize(x, factor, 0, -128, 127).square().sum(), scale)[0]
    assert torch.allclose(less, plain / (32 * 127) ** 0.5)


def test_what_was_trained_is_written_as_the_integers_that_the_view_used(tmp_path: Path) -> None:
    path = saved(convolution(), tmp_path / "m.onnx")
    module = to_torch(path).train()
    x, goal = torch.randn(4, 3, 6, 6), torch.randn(4, 4, 6, 6)
    steps = torch.optim.SGD(module.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = (module(x) - goal).square().mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    to_onnx(module, like=path, out=tmp_path / "out.onnx")
    before, after = onnx.load(path), onnx.load(tmp_path / "out.onnx")
    changed = {a.name for a, b in zip(before.graph.initializer, after.graph.initializer, strict=True) if a != b}
    assert changed == {"w", "b"}
    assert [n.op_type for n in before.graph.node] == [n.op_type for n in after.graph.node]
    off = (module(x) - runtime(after, x)).abs() / 0.05
    assert (off > 0.5).float().mean() < 0.01


@pytest.mark.parametrize("learn_scales", [False, True])
def test_weights_of_seven_bits_stay_within_them(tmp_path: Path, learn_scales: bool) -> None:
    """Where a CPU adds pairs of products in 16 bits, a wider weight would saturate there and nowhere else."""
    made = convolution()
    weight = next(tensor for tensor in made.graph.initializer if tensor.name == "w")
    weight.CopyFrom(numpy_helper.from_array(to_array(weight) // 2, "w"))
    path = saved(made, tmp_path / "m.onnx")
    module = to_torch(path, learn_scales=learn_scales)
    with torch.no_grad():
        module.get_parameter("w").mul_(3)
    to_onnx(module, like=path, out=tmp_path / "out.onnx")
    after = {tensor.name: to_array(tensor) for tensor in onnx.load(tmp_path / "out.onnx").graph.initializer}
    assert (after["w"].min(), after["w"].max()) == (-64, 63)
    x = torch.randn(2, 3, 6, 6)
    assert ((module(x) - runtime(onnx.load(tmp_path / "out.onnx"), x)).abs() / 0.05 > 0.5).float().mean() < 0.01


def test_learned_scales_are_written_back(tmp_path: Path) -> None:
    path = saved(convolution(), tmp_path / "m.onnx")
    module = to_torch(path, learn_scales=True)
    trained = {name for name, _ in module.named_parameters()}
    assert trained == {"w", "b", "x_scale", "w_scale", "y_scale"}, "the scale of a bias is not free"
    module(torch.randn(2, 3, 6, 6)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    # weights lie on their grid yet, where the gradient of their scale is 0
    assert all(module.get_parameter(f"{name}_scale").grad != 0 for name in "xy")
    with torch.no_grad():
        module.get_parameter("w_scale").mul_(1.5)
    to_onnx(module, like=path, out=tmp_path / "out.onnx")
    after = {t.name: to_array(t) for t in onnx.load(tmp_path / "out.onnx").graph.initializer}
    before = {t.name: to_array(t) for t in onnx.load(path).graph.initializer}
    assert np.allclose(after["w_scale"], before["w_scale"] * 1.5)
    assert np.array_equal(after["w"], np.round(before["w"] / 1.5))
    assert np.allclose(after["b_scale"], after["x_scale"] * after["w_scale"])
    x = torch.randn(2, 3, 6, 6)
    assert ((module(x) - runtime(onnx.load(tmp_path / "out.onnx"), x)).abs() / 0.05 > 0.5).float().mean() < 0.01


@pytest.mark.parametrize("learn_scales", [False, True])
def test_what_is_written_is_valid_and_every_tensor_keeps_its_shape(tmp_path: Path, learn_scales: bool) -> None:
    path = saved(onnx.shape_inference.infer_shapes(convolution()), tmp_path / "m.onnx")
    module = to_torch(path, learn_scales=learn_scales)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.25)
    made = to_onnx(module, like=path)
    onnx.checker.check_model(made, full_check=True)
    before = {tensor.name: (tuple(tensor.dims), tensor.data_type) for tensor in onnx.load(path).graph.initializer}
    assert {tensor.name: (tuple(tensor.dims), tensor.data_type) for tensor in made.graph.initializer} == before
    assert before["x_scale"][0] == ()


def test_a_scale_that_went_below_zero_is_written_as_it_counted(tmp_path: Path) -> None:
    path = saved(convolution(), tmp_path / "m.onnx")
    module = to_torch(path, learn_scales=True)
    with torch.no_grad():
        module.get_parameter("w_scale").mul_(-1.25)
        module.get_parameter("x_scale").mul_(-0.5)
    to_onnx(module, like=path, out=tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    after = {t.name: to_array(t) for t in written.graph.initializer}
    assert all((array > 0).all() for name, array in after.items() if name.endswith("_scale"))
    assert np.allclose(after["b_scale"], after["x_scale"] * after["w_scale"])
    x = torch.randn(2, 3, 6, 6)
    assert ((module(x) - runtime(written, x)).abs() / 0.05 > 0.5).float().mean() < 0.01


def test_what_moves_numbers_keeps_one_scale_and_others_part(tmp_path: Path) -> None:
    """Concat's kernel takes integers of one scale; that rectifiers end at the same 6 says nothing."""
    scales = {f"{name}_scale": np.array(0.02, np.float32) for name in "abcde"}
    zeros = {f"{name}_zero": np.array(0, np.uint8) for name in "abcde"}
    nodes = [
        *pair("a", "x"),
        helper.make_node("Clip", ["a_dq", "", "six"], ["clipped"]),
        *pair("b", "clipped"),
        helper.make_node("Add", ["b_dq", "b_dq"], ["twice"]),
        *pair("c", "twice"),
        helper.make_node("Mul", ["b_dq", "b_dq"], ["square"]),
        *pair("d", "square"),
        helper.make_node("Concat", ["c_dq", "d_dq"], ["both"], axis=1),
        helper.make_node("Reshape", ["both", "shape"], ["flat"]),
        *pair("e", "flat"),
    ]
    more = {"six": np.array(6, np.float32), "shape": np.array([0, -1], np.int64)}
    made = model(nodes, [value("x", ["n", 3, 2])], [value("e_dq", ["n", 12])], {**scales, **zeros, **more}, opset=20)
    path = saved(made, tmp_path / "m.onnx")
    module = to_torch(path, learn_scales=True)
    assert {name for name, _ in module.named_parameters()} == {"a_scale", "c_scale"}
    assert module.meta["trtcompress"]["twins"] == {"b_scale": "a_scale", "d_scale": "c_scale", "e_scale": "c_scale"}
    with torch.no_grad():
        module.get_parameter("c_scale").mul_(2)
    to_onnx(module, like=path, out=tmp_path / "out.onnx")
    after = {
        t.name: to_array(t).item() for t in onnx.load(tmp_path / "out.onnx").graph.initializer if "scale" in t.name
    }
    assert after == pytest.approx({"a_scale": 0.02, "b_scale": 0.02, "c_scale": 0.04, "d_scale": 0.04, "e_scale": 0.04})


def test_equal_scales_of_one_tensor_are_learned_as_one(tmp_path: Path) -> None:
    """Both ends of a pair may store it."""
    made = convolution()
    for name, twin in (("x_scale", "x_scale_too"), ("y_scale", "y_scale_too")):
        held = next(t for t in made.graph.initializer if t.name == name)
        copy = made.graph.initializer.add()
        copy.CopyFrom(held)
        copy.name = twin
        reader = next(n for n in made.graph.node if n.op_type == "DequantizeLinear" and n.input[1] == name)
        reader.input[1] = twin
    path = saved(made, tmp_path / "m.onnx")
    module = to_torch(path, learn_scales=True)
    first = {name for name, _ in module.named_parameters() if name.endswith("scale") or name.endswith("too")}
    assert len(first & {"x_scale", "x_scale_too"}) == len(first & {"y_scale", "y_scale_too"}) == 1
    assert len(learned_scales(module)) == 3
    with torch.no_grad():
        for scale in learned_scales(module):
            scale.mul_(1.25)
    to_onnx(module, like=path, out=tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    after = {t.name: to_array(t) for t in written.graph.initializer}
    assert after["x_scale"] == after["x_scale_too"] == np.float32(0.02) * np.float32(1.25)
    assert after["y_scale"] == after["y_scale_too"]
    assert np.allclose(after["b_scale"], after["x_scale"] * after["w_scale"])
    x = torch.randn(2, 3, 6, 6)
    assert ((module(x) - runtime(written, x)).abs() / 0.06 > 0.5).float().mean() < 0.01


def test_nothing_trained_is_equal_to_the_byte(tmp_path: Path) -> None:
    path = saved(convolution(), tmp_path / "m.onnx")
    for option in (False, True):
        to_onnx(to_torch(path, learn_scales=option), like=path, out=tmp_path / "out.onnx")
        assert (tmp_path / "out.onnx").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
def test_blocks_of_four_bits_are_trained_and_written_back(kind: int, tmp_path: Path) -> None:
    signed = kind == TensorProto.INT4
    integers = RNG.integers(-8 if signed else 0, 8 if signed else 16, (8, 6))
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["wd"], axis=0, block_size=4),
        helper.make_node("MatMul", ["x", "wd"], ["y"]),
    ]
    weights = {"scale": RNG.random((2, 6)).astype(np.float32) + 0.1}
    proto = model(nodes, [value("x", [3, 8])], [value("y", [3, 6])], weights, opset=21)
    proto.ir_version = 10
    proto.graph.initializer.append(helper.make_tensor("w", kind, (8, 6), integers.flatten().tolist()))
    path = saved(proto, tmp_path / "m.onnx")
    module, x = to_torch(path), torch.randn(3, 8)
    assert torch.allclose(module(x), runtime(proto, x), atol=1e-5)
    with torch.no_grad():
        module.get_parameter("w")[0, 0] += 2 * weights["scale"][0, 0]
    to_onnx(module, like=path, out=tmp_path / "out.onnx")
    after = numpy_helper.to_array(next(t for t in onnx.load(tmp_path / "out.onnx").graph.initializer if t.name == "w"))
    expected = integers.copy()
    expected[0, 0] = min(integers[0, 0] + 2, 7 if signed else 15)
    assert np.array_equal(after.astype(int), expected)
    assert torch.allclose(module(x), runtime(onnx.load(tmp_path / "out.onnx"), x), atol=1e-5)


def test_what_is_written_is_what_was_trained_where_scales_learn_too(tmp_path):
    """The scale of a bias is the product of two that learn, in the view as in the file: kernels need it so."""
    path = tmp_path / "m.onnx"
    onnx.save(convolution(), path)
    module = to_torch(path, learn_scales=True).train()
    x = torch.from_numpy(RNG.normal(size=(16, 3, 6, 6)).astype(np.float32))
    optimizer = torch.optim.SGD(module.parameters(), 1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        (module(x) - 0.3).square().mean().backward()
        optimizer.step()
    written = to_onnx(module, like=path, out=tmp_path / "trained.onnx").path
    held = {one.name: to_array(one) for one in onnx.load(written).graph.initializer}
    old = {one.name: to_array(one) for one in onnx.load(path).graph.initializer}
    assert not np.array_equal(held["w_scale"], old["w_scale"])
    assert not np.array_equal(held["x_scale"], old["x_scale"])
    np.testing.assert_array_equal(held["b_scale"], held["x_scale"] * held["w_scale"])
    with torch.no_grad():
        trained = module.eval()(x)
        assert torch.equal(to_torch(written)(x), trained)
    found = ort.InferenceSession(written).run(None, {"x": x.numpy()})[0]
    assert np.abs(found - trained.numpy()).max() <= held["y_scale"] * 1.001
    assert (found != trained.numpy()).mean() < 0.01, "next to nothing is on the other side of a rounding"


@pytest.mark.parametrize("change", ["none", "shared", "other"])
def test_scales_of_biases_follow_two_others_where_they_are_their_product(tmp_path, change):
    made = convolution()
    if change == "shared":  # by a node whose input has another scale
        made.graph.initializer.append(numpy_helper.from_array(np.array(0.05, np.float32), "z_scale"))
        made.graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), "z_zero"))
        made.graph.node.extend([*pair("z", "x"), helper.make_node("Conv", ["z_dq", "w_dq", "b_dq"], ["c2"])])
        made.graph.output.append(value("c2", ["n", 4, 4, 4]))
    elif change == "other":
        (held,) = (one for one in made.graph.initializer if one.name == "b_scale")
        held.CopyFrom(numpy_helper.from_array(to_array(held) * np.float32(1.01), "b_scale"))
    onnx.save(made, tmp_path / "m.onnx")
    module = to_torch(tmp_path / "m.onnx", learn_scales=True)
    assert ("b_scale" in module.state_dict()) is (change != "none")
    assert (tmp_path / "m.onnx").read_bytes() == to_onnx(
        module, like=tmp_path / "m.onnx", out=tmp_path / "same.onnx"
    ).path.read_bytes()


def test_what_is_not_finite_is_not_written(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(convolution(), path)
    module = to_torch(path)
    with torch.no_grad():
        next(iter(module.parameters())).flatten()[0] = float("nan")
    with pytest.raises(ModelError, match="what was trained is not finite"):
        to_onnx(module, like=path, out=tmp_path / "broken.onnx")
    assert not (tmp_path / "broken.onnx").exists()


def test_a_compiled_view_is_written_as_the_view(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(convolution(), path)
    compiled = torch.compile(to_torch(path), backend="eager")
    assert to_onnx(compiled, like=path, out=tmp_path / "same.onnx").path.read_bytes() == path.read_bytes()
