"""Inputs that always have one value, and the branches that are left when their `If`s are folded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from assets import asset
from onnx_models import difference, model, run, save, value
from trtcompress_graph.branches import open_branches, uneven_branches
from trtcompress_graph.errors import ModelError, UsageError
from trtcompress_graph.fixing import fix_inputs, read_fixed
from trtcompress_graph.load import load_ir, read_model
from trtcompress_graph.protos import nodes
from trtcompress_graph.simplify import simplify

VAD = ("silero_vad_16k_op15.onnx", "silero_vad_op18_ifless.onnx", "silero_vad.onnx")


@pytest.mark.parametrize("tail", VAD)
def test_a_voice_detector_has_no_branches_at_one_sample_rate(tail: str, tmp_path: Path) -> None:
    path, rng = asset("silero-vad", tail), np.random.default_rng(0)
    plain = simplify(read_model(path), tmp_path / "m.onnx", fix={"sr": 16000})
    assert {spec.name for spec in plain.inputs} == {"input", "state"}
    assert [spec.name for spec in plain.outputs] == ["output", "stateN"]
    batch = plain.inputs[0].shape[0]
    assert [spec.shape for spec in plain.outputs] == [(batch, 1), (2, batch, 128)]
    proto = onnx.load(plain.path)
    kinds = Counter(node.op_type for node in nodes(proto))
    assert kinds["Conv"] == 6
    assert not {"If", "Identity", "ConstantOfShape", "Equal"} & set(kinds)
    feeds = {
        "input": rng.standard_normal((2, 576)).astype(np.float32),
        "state": rng.standard_normal((2, 2, 128)).astype(np.float32),
    }
    for expected, found in zip(run(path, {**feeds, "sr": np.array(16000)}), run(plain.path, feeds), strict=True):
        assert difference(expected, found) < 1e-6
    assert simplify(plain, tmp_path / "again.onnx").digest == plain.digest


def test_the_weights_of_a_branch_keep_their_names(tmp_path: Path) -> None:
    original = onnx.load(asset("silero-vad", VAD[1]))
    held = {tensor.name for node in nodes(original) for a in node.attribute for tensor in a.g.initializer}
    plain = simplify(read_model(asset("silero-vad", VAD[1])), tmp_path / "m.onnx", fix={"sr": 16000})
    weights = {tensor.name for tensor in onnx.load(plain.path).graph.initializer if len(tensor.dims) >= 2}
    assert len(weights) >= 8
    assert {name.removesuffix(".T") for name in weights} <= held | {t.name for t in original.graph.initializer}


class Tree:
    """`If`s inside `If`s on an input `k`; branches beside each other call their tensors alike."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def branch(self, depth: int) -> onnx.GraphProto:
        """`r` of a tensor from outside, of a weight of its own and, further in, of one of two branches."""
        weight, out, inner, result = (f"{name}{depth}" for name in ("w", "a", "b", "r"))
        op = self.draw(st.sampled_from(["Add", "Mul", "Sub"]))
        made = [helper.make_node(op, ["outer", weight], [out], name=f"op{depth}")]
        made += self.choice(inner, depth - 1) if depth else [helper.make_node("Tanh", ["x"], [inner], name="deep")]
        made.append(helper.make_node("Add", [out, inner], [result], name=f"sum{depth}"))
        held = numpy_helper.from_array(self.draw(st.sampled_from(WEIGHTS)), weight)
        return helper.make_graph(made, "branch", [], [value(result, None)], [held])

    def choice(self, output: str, depth: int) -> list[onnx.NodeProto]:
        """`output` of one of two branches, by whether `k` is a number."""
        asked, equal = f"{output}_asked", f"{output}_is"
        number = numpy_helper.from_array(np.array(self.draw(st.integers(0, 2))))
        branches = {"then_branch": self.branch(depth), "else_branch": self.branch(depth)}
        return [
            helper.make_node("Constant", [], [asked], name=asked, value=number),
            helper.make_node("Equal", ["k", asked], [equal], name=equal),
            helper.make_node("If", [equal], [output], name=f"choose_{output}", **branches),
        ]


WEIGHTS = [np.full(3, number, np.float32) for number in (0.5, 2, -1)]


@st.composite
def trees(draw: st.DrawFn) -> onnx.ModelProto:
    tree = Tree(draw)
    made = [helper.make_node("Relu", ["x"], ["outer"], name="outer"), *tree.choice("y", draw(st.integers(0, 2)))]
    made += tree.choice("z", 0)
    return model(
        made,
        [value("x", ["n", 3]), value("k", [], TensorProto.INT64)],
        [value("y", ["n", 3]), value("z", ["n", 3])],
        {},
    )


@given(proto=trees(), k=st.integers(0, 2))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_branches_inside_branches_that_name_tensors_alike(proto: onnx.ModelProto, k: int, tmp_path: Path) -> None:
    path = save(proto, tmp_path / "m.onnx")
    x = np.array([[1, -2, 0.5], [0, 3, -1]], np.float32)
    plain = simplify(read_model(path), tmp_path / "out.onnx", fix={"k": k})
    assert "If" not in {node.op_type for node in nodes(onnx.load(plain.path))}
    assert [spec.name for spec in plain.inputs] == ["x"]
    for expected, found in zip(run(path, {"x": x, "k": np.array(k)}), run(plain.path, {"x": x}), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    left = simplify(read_model(path), tmp_path / "left.onnx")
    for expected, found in zip(
        run(path, {"x": x, "k": np.array(k)}), run(left.path, {"x": x, "k": np.array(k)}), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert uneven_branches(load_ir(left)) == ()
    told = open_branches(load_ir(left))
    assert told
    assert all("its condition depends on 'k'" in sentence for sentence in told)


def squeezed(axis_behind: bool) -> onnx.ModelProto:
    """What exporters write for `x.squeeze(-1)`; behind it a layer that takes two axes, or one that takes any."""
    one = numpy_helper.from_array(np.array([2]), "axis")
    then = helper.make_graph(
        [helper.make_node("Squeeze", ["x", "axis"], ["s"], name="squeeze")], "t", [], [value("s", None)], [one]
    )
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["i"], name="id")], "e", [], [value("i", None)])
    made = [
        helper.make_node("Shape", ["x"], ["shape"], name="shape", start=2),
        helper.make_node("Equal", ["shape", "one"], ["is1"], name="is1"),
        helper.make_node("If", ["is1"], ["v"], name="maybe", then_branch=then, else_branch=other),
        helper.make_node("Gemm", ["v", "w"], ["y"], name="fc")
        if axis_behind
        else helper.make_node("ReduceSum", ["v"], ["y"], name="sum", keepdims=0),
    ]
    weights = {"one": np.array([1]), "w": np.eye(4, dtype=np.float32)}
    return model(made, [value("x", ["n", 4, "t"])], [value("y", ["n", 4] if axis_behind else [])], weights)


def test_the_branch_that_alone_fits_what_reads_it_is_taken(tmp_path: Path) -> None:
    path = save(squeezed(axis_behind=True), tmp_path / "m.onnx")
    plain = simplify(read_model(path), tmp_path / "out.onnx")
    assert [node.op_type for node in onnx.load(plain.path).graph.node] == ["Squeeze", "Gemm"]
    x = np.arange(8, dtype=np.float32).reshape(2, 4, 1)
    np.testing.assert_array_equal(run(plain.path, {"x": x})[0], run(path, {"x": x})[0])


def test_where_both_branches_fit_the_choice_stays_and_is_told(tmp_path: Path) -> None:
    path = save(squeezed(axis_behind=False), tmp_path / "m.onnx")
    plain = simplify(read_model(path), tmp_path / "out.onnx")
    (told,) = open_branches(load_ir(plain))
    assert told.startswith("the If 'maybe' stays")
    assert "depends on 'x'" in told
    assert uneven_branches(load_ir(plain)) == ("maybe",)
    for length in (1, 3):
        x = np.arange(8 * length, dtype=np.float32).reshape(2, 4, length)
        np.testing.assert_array_equal(run(plain.path, {"x": x})[0], run(path, {"x": x})[0])


def scaled(kind: int, shape: list[int | str]) -> onnx.ModelProto:
    cast = helper.make_node("Cast", ["s"], ["f"], name="cast", to=TensorProto.FLOAT)
    product = helper.make_node("Mul", ["x", "f"], ["y"], name="mul")
    return model([cast, product], [value("x", ["n", 2]), value("s", shape, kind)], [value("y", ["n", 2])], {})


@pytest.mark.parametrize(
    ("kind", "shape", "given_", "expected"),
    [
        (TensorProto.INT64, [], 3, [3, 3]),
        (TensorProto.FLOAT, [1], 0.5, [0.5, 0.5]),
        (TensorProto.FLOAT, [2], [1, 2.5], [1, 2.5]),
        (TensorProto.INT32, ["m"], [4, 5], [4, 5]),
        (TensorProto.BOOL, [], True, [1, 1]),
    ],
)
def test_values_take_type_and_shape_of_the_input(
    kind: int, shape: list[int | str], given_: object, expected: list[float], tmp_path: Path
) -> None:
    path = save(scaled(kind, shape), tmp_path / "m.onnx")
    fixed = fix_inputs(read_model(path), {"s": given_}, tmp_path / "fixed.onnx")
    assert [spec.name for spec in fixed.inputs] == ["x"]
    assert "s" in {tensor.name for tensor in onnx.load(fixed.path).graph.initializer}
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(run(read_model(fixed.path).path, {"x": x})[0], [expected])


@pytest.mark.parametrize(
    ("kind", "shape", "values", "message"),
    [
        (TensorProto.INT64, [], {"rate": 3}, "no input 'rate'"),
        (TensorProto.INT64, [], {"s": 2.5}, r"2.5 is no value for an input of int64 \[\]"),
        (TensorProto.INT32, [], {"s": 1 << 40}, "is no value for an input of int32"),
        (TensorProto.INT64, [], {"s": True}, "True is no value"),
        (TensorProto.BOOL, [], {"s": 1}, "1 is no value for an input of bool"),
        (TensorProto.FLOAT, [], {"s": "fast"}, "'fast' is no value"),
        (TensorProto.FLOAT, [], {"s": float("inf")}, "inf is no value"),
        (TensorProto.FLOAT, [2], {"s": [1, 2, 3]}, r"shape \[3\] does not fit an input of float32 \[2\]"),
        (TensorProto.FLOAT, [2], {"s": [[1], 2]}, "is no value"),
        (TensorProto.FLOAT, ["m"], {"s": 1}, r"shape \[\] does not fit an input of float32 \[m\]"),
        (TensorProto.FLOAT, [], {"s": 1, "x": [[1, 2]]}, "every input is fixed"),
    ],
)
def test_what_cannot_be_fixed_is_refused(
    kind: int, shape: list[int | str], values: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = save(scaled(kind, shape), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message):
        simplify(read_model(path), tmp_path / "out.onnx", fix=values)
    assert not (tmp_path / "out.onnx").exists()


def test_a_name_that_is_nearly_right_is_proposed(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        simplify(read_model(asset("silero-vad", VAD[0])), tmp_path / "out.onnx", fix={"srr": 16000})
    assert caught.value.hint == "did you mean 'sr'? its inputs are: input, state, sr"


def test_values_as_they_are_typed() -> None:
    assert read_fixed("sr=16000") == ("sr", 16000)
    assert read_fixed("sizes=[1, 2.5]") == ("sizes", [1, 2.5])
    assert read_fixed("on=true") == ("on", True)
    for wrong in ("sr", "sr=", "sr=fast"):
        with pytest.raises(UsageError, match="is not INPUT=VALUE"):
            read_fixed(wrong)
