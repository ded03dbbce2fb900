"""A view beside ONNX Runtime on the same file, where ONNX's own suite has no case."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper

from onnx_models import model, value
from trtcompress_graph.torch_view import to_torch

RNG = np.random.default_rng(0)


def one(node: onnx.NodeProto, x: NDArray[Any], opset: int = 20, **weights: NDArray[Any]) -> onnx.ModelProto:
    """A node that makes y out of x and constants."""
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    result = helper.make_tensor_value_info("y", kind, None)
    return model([node], [value("x", x.shape, kind)], [result], weights, opset)


def agree(proto: onnx.ModelProto, x: NDArray[Any], tolerance: float = 1e-5) -> None:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"x": x})
    made = to_torch(proto)(torch.from_numpy(x))
    for got, told in zip(made if isinstance(made, tuple) else (made,), wanted, strict=True):
        assert tuple(got.shape) == told.shape
        assert got.detach().numpy().dtype == told.dtype
        np.testing.assert_allclose(got.detach().numpy(), told, rtol=tolerance, atol=tolerance)


IMAGE = RNG.standard_normal((1, 2, 10, 12)).astype(np.float32)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("kind", "opset", "factor"),
    [("Upsample", 9, f) for f in (2, 3, 1.3)] + [("Resize", 10, f) for f in (2, 3, 0.5, 0.7, 1.2, 1.3, 2.3)],
)
def test_images_of_opsets_without_half_pixels(kind: str, opset: int, factor: float, mode: str) -> None:
    node = helper.make_node(kind, ["x", "s"], ["y"], mode=mode)
    agree(one(node, IMAGE, opset, s=np.array([1, 1, factor, factor], np.float32)), IMAGE)


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -2])
def test_axes_that_were_one_before_opset_13(kind: str, axis: int | None) -> None:
    x = RNG.standard_normal((2, 3, 4)).astype(np.float32)
    node = helper.make_node(kind, ["x"], ["y"], **({} if axis is None else {"axis": axis}))
    agree(one(node, x, 11), x)


@pytest.mark.parametrize("coordinates", ["asymmetric", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"])
@pytest.mark.parametrize(
    ("mode", "rounding"),
    [("linear", "floor"), ("cubic", "floor"), ("nearest", "round_prefer_floor"), ("nearest", "floor")],
)
@pytest.mark.parametrize("factor", [0.7, 1.2, 2.3])
def test_lengths_and_elements_by_factors_that_float32_does_not_hold(
    coordinates: str, mode: str, rounding: str, factor: float
) -> None:
    how = {"coordinate_transformation_mode": coordinates, "mode": mode, "nearest_mode": rounding}
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], **how)
    agree(one(node, IMAGE, s=np.array([1, 1, factor, factor], np.float32)), IMAGE)


def test_cubic_integers_stay_in_their_range() -> None:
    x = np.repeat(np.array([255, 0], np.uint8), 4).reshape(1, 1, 1, 8).repeat(8, 2)
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], mode="cubic", antialias=1)
    agree(one(node, x, s=np.array([1, 1, 1.7, 1.7], np.float32)), x)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("factor", [2, 0.7])
def test_lengths_that_are_unknown_are_scaled_as_well(mode: str, factor: float) -> None:
    how = {"coordinate_transformation_mode": "asymmetric", "mode": mode, "nearest_mode": "floor"}
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], **how)
    proto = one(node, IMAGE, s=np.array([1, 1, factor, factor], np.float32))
    view = to_torch(proto)
    images = [torch.rand(5, 2, 10, 12), torch.rand(4, 2, 17, 30)]
    axes = ({axis: torch.export.Dim(f"axis{axis}", min=4, max=99) for axis in (0, 2, 3)},)
    exported = torch.export.export(view, (images[0],), dynamic_shapes=axes).module()
    for x in images:
        assert torch.allclose(exported(x), view(x), atol=1e-6)


def test_the_rest_of_a_division_in_the_arithmetic_of_shapes() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["lengths"]),
        helper.make_node("Mod", ["lengths", "by"], ["rest"], fmod=0),
        helper.make_node("Neg", ["lengths"], ["less"]),
        helper.make_node("Mod", ["less", "by"], ["cut"], fmod=1),
        helper.make_node("Concat", ["rest", "cut"], ["y"], axis=0),
    ]
    x, result = RNG.random((5, 7)).astype(np.float32), value("y", [4], onnx.TensorProto.INT64)
    agree(model(nodes, [value("x", ["a", "b"])], [result], {"by": np.array([3])}), x)


@pytest.mark.parametrize(
    ("activations", "alphas", "betas"),
    [
        (["Tanh", "LeakyRelu"], [0.3], []),
        (["LeakyRelu", "HardSigmoid"], [0.3, 0.4], [0.2]),
        (["Tanh", "ScaledTanh"], [0.5], [0.7]),
        (["ScaledTanh", "Affine"], [], []),
    ],
)
def test_activations_take_the_next_number(activations: list[str], alphas: list[float], betas: list[float]) -> None:
    x, w, r = (RNG.standard_normal(shape).astype(np.float32) for shape in ((4, 2, 3), (2, 5, 3), (2, 5, 5)))
    given = {"activations": activations, "activation_alpha": alphas, "activation_beta": betas}
    given = {name: numbers for name, numbers in given.items() if numbers}
    node = helper.make_node("RNN", ["x", "w", "r"], ["y"], direction="bidirectional", hidden_size=5, **given)
    agree(one(node, x, w=w, r=r), x)


def test_a_range_that_leads_away_from_its_limit_is_empty() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["lengths"]),
        helper.make_node("Squeeze", ["lengths"], ["length"]),
        helper.make_node("Range", ["three", "length", "one"], ["up"]),
        helper.make_node("Range", ["length", "three", "minus"], ["down"]),
        helper.make_node("Concat", ["up", "down", "lengths"], ["y"], axis=0),
    ]
    weights = {"three": np.array(3), "one": np.array(1), "minus": np.array(-1)}
    result = value("y", [None], onnx.TensorProto.INT64)
    for length in (1, 3, 5):
        agree(model(nodes, [value("x", ["n"])], [result], weights), np.zeros(length, np.float32))


@pytest.mark.parametrize("mode", ["wrap", "edge", "reflect"])
def test_what_negative_pads_cut_off_does_not_come_back(mode: str) -> None:
    x = RNG.random(6).astype(np.float32)
    agree(one(helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode), x, 19, pads=np.array([-2, 2])), x)


def test_the_greatest_of_regions_where_all_is_negative() -> None:
    x = -1 - RNG.random((1, 2, 8, 8)).astype(np.float32)
    node = helper.make_node(
        "RoiAlign", ["x", "rois", "batches"], ["y"], mode="max", output_height=3, output_width=2, sampling_ratio=2
    )
    rois = np.array([[0.7, 1.1, 5.3, 6.2], [-3, 2, 4, 9.5]], np.float32)
    agree(one(node, x, rois=rois, batches=np.array([0, 0])), x)


def test_logarithms_of_sums_of_integers() -> None:
    x = np.arange(1, 13, dtype=np.int32).reshape(3, 4)
    agree(one(helper.make_node("ReduceLogSum", ["x", "axes"], ["y"]), x, axes=np.array([1])), x)
    exponentials = one(helper.make_node("ReduceLogSumExp", ["x", "axes"], ["y"]), x, axes=np.array([1]))
    assert to_torch(exponentials)(torch.from_numpy(x)).dtype == torch.int32


def test_instances_of_one_element() -> None:
    """What is left of each is the bias; of greater numbers both round by more, over the root of epsilon."""
    x, scale, bias = (RNG.random(shape).astype(np.float32) for shape in ((2, 3, 1, 1), (3,), (3,)))
    proto = one(helper.make_node("InstanceNormalization", ["x", "scale", "bias"], ["y"]), x, scale=scale, bias=bias)
    agree(proto, x / 16)
    np.testing.assert_allclose(to_torch(proto)(torch.from_numpy(x / 16))[1, :, 0, 0].detach().numpy(), bias, rtol=1e-5)


@pytest.mark.parametrize("kind", ["LpPool", "MeanVarianceNormalization"])
def test_gradients_where_nothing_differs(kind: str) -> None:
    node = helper.make_node(kind, ["x"], ["y"], **({"kernel_shape": [2, 2]} if kind == "LpPool" else {}))
    zeros = np.zeros((1, 1, 4, 4), np.float32)
    x = torch.from_numpy(zeros).requires_grad_()
    to_torch(one(node, zeros))(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_numbers_drawn_of_constants_change() -> None:
    draw = helper.make_node("Multinomial", ["chances"], ["drawn"], sample_size=64)
    cast = helper.make_node("Cast", ["drawn"], ["numbers"], to=onnx.TensorProto.FLOAT)
    add = helper.make_node("Add", ["x", "numbers"], ["y"])
    proto = model(
        [draw, cast, add], [value("x", [1])], [value("y", [1, 64])], {"chances": np.zeros((1, 9), np.float32)}
    )
    view = to_torch(proto)
    assert not torch.equal(view(torch.zeros(1)), view(torch.zeros(1)))
