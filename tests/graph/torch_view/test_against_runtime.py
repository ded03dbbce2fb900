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
