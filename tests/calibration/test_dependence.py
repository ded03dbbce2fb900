"""What follows from shapes alone, and what has a shape that follows from values."""

import onnx
from onnx import TensorProto, helper

from trtcompress_calibration.dependence import dependence

node = helper.make_node


def graph_of(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "s"])]
    return helper.make_model(helper.make_graph([*nodes], "g", inputs, []))


def test_what_is_made_from_shapes() -> None:
    found = dependence(
        graph_of(
            node("Shape", ["x"], ["shape"]),
            node("ConstantOfShape", ["shape"], ["zeros"]),
            node("Add", ["zeros", "weight"], ["from_shape"]),
            node("Add", ["zeros", "x"], ["from_value"]),
            node("RandomNormalLike", ["zeros"], ["noise"]),
        )
    )
    assert found.on_shapes == {"shape", "zeros", "from_shape"}
    assert not found.shaped_by_values


def test_a_shape_that_values_decide() -> None:
    found = dependence(
        graph_of(
            node("NonZero", ["x"], ["places"]),
            node("Transpose", ["places"], ["turned"]),
            node("Shape", ["turned"], ["count"]),
            node("ConstantOfShape", ["count"], ["made"]),
            node("Shape", ["x"], ["shape"]),
            node("Expand", ["weight", "shape"], ["wide"]),
        )
    )
    assert found.on_shapes == {"shape", "wide"}
    assert found.shaped_by_values == {"places", "turned", "count", "made"}


def test_inner_graphs_are_looked_into() -> None:
    reads_x = helper.make_graph([node("Relu", ["x"], ["inner"])], "b", [], [])
    found = dependence(graph_of(node("If", ["flag"], ["y"], then_branch=reads_x, else_branch=reads_x)))
    assert not found.on_shapes
    assert found.shaped_by_values == {"y"}
