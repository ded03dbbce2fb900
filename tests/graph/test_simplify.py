from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from onnx_ir import from_proto
from PIL import Image, ImageDraw, ImageFont

from assets import asset
from onnx_models import LIGHT, difference, light, model, run, save, small, value
from trtcompress_graph.convolutions import fold_affine
from trtcompress_graph.load import load_ir, read_model
from trtcompress_graph.simplify import simplify

Feeds = Mapping[str, NDArray[np.generic]]


def names(proto: onnx.ModelProto) -> set[str]:
    return {t.name for t in proto.graph.initializer} | {name for node in proto.graph.node for name in node.output}


def check(path: Path, feeds: Feeds, out: Path, tolerance: float = 1e-5, again: bool = False) -> onnx.ModelProto:
    """Simplify; answers, inputs and outputs must stay, and (`again`) doing it twice must change nothing more."""
    read = read_model(path)
    plain = simplify(read, out)
    assert [spec.name for spec in plain.inputs] == [spec.name for spec in read.inputs]
    assert [spec.name for spec in plain.outputs] == [spec.name for spec in read.outputs]
    for expected, given_ in zip(run(path, feeds), run(read_model(out).path, feeds), strict=True):
        assert difference(expected, given_) <= tolerance
    if again:
        assert simplify(read, out.with_suffix(".twin.onnx")).digest == plain.digest
        assert simplify(plain, out.with_suffix(".again.onnx")).digest == plain.digest
    proto = onnx.load(out)
    named = [node.name for node in proto.graph.node]
    assert all(named)
    assert len(set(named)) == len(named)
    return proto


@pytest.mark.parametrize("name", LIGHT)
def test_image_classifiers_from_opset_9(name: str, tmp_path: Path) -> None:
    original = light(name)
    path = save(original, tmp_path / "m.onnx")
    spec = read_model(path).inputs[0]
    x = np.random.default_rng(0).standard_normal(spec.shape).astype(np.float32)
    proto = check(path, {spec.name: x}, tmp_path / "out.onnx")
    assert proto.opset_import[0].version == 20
    kinds = Counter(node.op_type for node in proto.graph.node)
    assert not kinds["Dropout"]
    assert not kinds["Constant"]
    if name in ("resnet50", "shufflenet"):
        assert not kinds["BatchNormalization"]
    weights = {tensor.name for tensor in proto.graph.initializer if len(tensor.dims) == 4}
    assert weights <= names(original)


PADDLE = (("det_infer.onnx", 64), ("rec_infer.onnx", 48), ("cls_infer.onnx", 48))


@pytest.mark.parametrize(("tail", "height"), PADDLE)
def test_text_models(tail: str, height: int, tmp_path: Path) -> None:
    page = Image.new("RGB", (192, height), "white")
    ImageDraw.Draw(page).text((20, 10), "Hello 12345", "black", ImageFont.load_default(24))
    x = np.stack([(np.asarray(page, np.float32) / 127.5 - 1).transpose(2, 0, 1)] * 2)
    path = asset("rapidocr-onnxruntime", tail)
    # The detector ends in a very steep sigmoid.
    proto = check(path, {"x": x}, tmp_path / "out.onnx", 1e-4 if tail.startswith("det") else 1e-5, again=True)
    original = onnx.load(path)
    assert not any(node.op_type in ("BatchNormalization", "Constant", "Identity") for node in proto.graph.node)
    assert {t.name for t in proto.graph.initializer if len(t.dims) == 4} <= names(original)
    known = {v.name for v in (*proto.graph.value_info, *proto.graph.output) if v.type.tensor_type.HasField("shape")}
    outputs = {name for node in proto.graph.node for name in node.output}
    assert outputs <= known


def test_speech_model_with_branches_and_a_frozen_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = asset("silero-vad", "silero_vad_16k_op15.onnx")
    state = np.zeros((2, 2, 128), np.float32)
    x = rng.standard_normal((2, 512)).astype(np.float32)
    proto = check(path, {"input": x, "state": state, "sr": np.array(16000)}, tmp_path / "out.onnx", again=True)
    assert len(proto.graph.node) < 60
    assert [d.dim_param or d.dim_value for d in proto.graph.output[1].type.tensor_type.shape.dim] == [2, "batch", 128]


def conv_then(nodes: list[onnx.NodeProto], weights: Feeds, kind: str = "Conv", group: int = 1) -> onnx.ModelProto:
    """A convolution of 4 channels to 4, and what stands behind it."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((4, 4 // group, 3, 3)).astype(np.float32)
    conv = helper.make_node(kind, ["x", "w"], ["c"], name="conv", group=group)
    return model([conv, *nodes], [value("x", ["n", 4, 6, 6])], [value("y", ["n", 4, None, None])], {"w": w, **weights})


def batch_norm(**attributes: int) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]:
    rng = np.random.default_rng(1)
    held = {k: rng.uniform(0.5, 2, 4).astype(np.float32) for k in ("scale", "bias", "mean", "var")}
    return [helper.make_node("BatchNormalization", ["c", *held], ["y"], name="bn", **attributes)], held


X = {"x": np.random.default_rng(2).standard_normal((2, 4, 6, 6)).astype(np.float32)}


@pytest.mark.parametrize(("kind", "group"), [("Conv", 1), ("Conv", 2), ("ConvTranspose", 1), ("ConvTranspose", 2)])
def test_batch_norm_goes_into_the_convolution_under_its_names(kind: str, group: int, tmp_path: Path) -> None:
    proto = conv_then(*batch_norm(), kind=kind, group=group)
    out = check(save(proto, tmp_path / "m.onnx"), X, tmp_path / "out.onnx")
    assert [node.op_type for node in out.graph.node] == [kind]
    assert list(out.graph.node[0].input) == ["x", "w", "bias"]
    assert {t.name for t in out.graph.initializer} == {"w", "bias"}


def test_batch_norm_stays_where_it_is_not_constant(tmp_path: Path) -> None:
    nodes, held = batch_norm(training_mode=1)  # ONNX Runtime does not run this one
    graph = from_proto(conv_then(nodes, held))
    fold_affine(graph)
    assert [node.op_type for node in graph.graph] == ["Conv", "BatchNormalization"]
    nodes, held = batch_norm()
    scale = held.pop("scale")
    fed = conv_then(nodes, held)
    fed.graph.input.append(value("scale", [4]))
    assert check_kinds(fed, {**X, "scale": scale}, tmp_path / "b") == ["Conv", "BatchNormalization"]


def check_kinds(proto: onnx.ModelProto, feeds: Feeds, folder: Path) -> list[str]:
    out = check(save(proto, folder / "m.onnx"), feeds, folder / "out.onnx", again=True)
    return [node.op_type for node in out.graph.node]


def test_weights_that_are_shared_or_read_elsewhere_are_not_changed(tmp_path: Path) -> None:
    nodes, held = batch_norm()
    proto = conv_then(nodes, held)
    proto.graph.node.append(helper.make_node("ReduceSum", ["w"], ["sum"], name="sum", keepdims=0))
    proto.graph.output.append(value("sum", []))
    proto.graph.node.append(helper.make_node("Conv", ["x", "w"], ["z"], name="other"))
    proto.graph.output.append(value("z", ["n", 4, None, None]))
    assert "BatchNormalization" in check_kinds(proto, X, tmp_path)


def test_a_convolution_that_is_an_output_keeps_its_values(tmp_path: Path) -> None:
    nodes, held = batch_norm()
    proto = conv_then(nodes, held)
    proto.graph.output.append(value("c", ["n", 4, None, None]))
    assert check_kinds(proto, X, tmp_path) == ["Conv", "BatchNormalization"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chain=st.lists(
        st.tuples(st.sampled_from(["Mul", "Add"]), st.sampled_from([(), (1,), (4, 1, 1), (1, 4, 1, 1), (4,), (4, 4)])),
        min_size=1,
        max_size=4,
    ),
    first=st.booleans(),
)
def test_scales_and_shifts_behind_a_convolution(
    tmp_path: Path, chain: list[tuple[str, tuple[int, ...]]], first: bool
) -> None:
    rng = np.random.default_rng(3)
    weights = {f"k{i}": rng.uniform(0.5, 2, shape).astype(np.float32) for i, (_, shape) in enumerate(chain)}
    nodes, last = [], "c"
    for index, (kind, _) in enumerate(chain):
        inputs = [f"k{index}", last] if first else [last, f"k{index}"]
        last = "y" if index == len(chain) - 1 else f"t{index}"
        nodes.append(helper.make_node(kind, inputs, [last]))
    kinds = check_kinds(conv_then(nodes, weights), X, tmp_path)
    # What varies along the width cannot be folded, nor what comes after it.
    folded = next((i for i, (_, shape) in enumerate(chain) if shape in ((4,), (4, 4))), len(chain))
    assert kinds == ["Conv", *(kind for kind, _ in chain[folded:])]


def test_what_does_nothing_goes_and_what_is_twice_there_is_done_once(tmp_path: Path) -> None:
    proto = model(
        [
            helper.make_node("Identity", ["x"], ["a"]),
            helper.make_node("Dropout", ["a"], ["b"]),
            helper.make_node("Relu", ["b"], ["c"]),
            helper.make_node("Relu", ["b"], ["d"]),
            helper.make_node("Sigmoid", ["b"], ["unused"]),
            helper.make_node("Add", ["k", "k"], ["kk"]),
            helper.make_node("Mul", ["c", "kk"], ["e"]),
            helper.make_node("Sub", ["e", "d"], ["y"]),
        ],
        [value("x", ["n", 4])],
        [value("y", ["n", 4])],
        {"k": np.array([1, 2, 3, 4], np.float32)},
    )
    x = {"x": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)}
    assert check_kinds(proto, x, tmp_path) == ["Relu", "Mul", "Sub"]


def test_outputs_keep_their_names_whatever_they_are(tmp_path: Path) -> None:
    proto = model(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Identity", ["a"], ["y"]),
            helper.make_node("Identity", ["a"], ["z"]),
            helper.make_node("Identity", ["x"], ["same"]),
            helper.make_node("Identity", ["k"], ["constant"]),
        ],
        [value("x", ["n", 4])],
        [value("a", ["n", 4]), *(value(name, ["n", 4]) for name in ("y", "z", "same")), value("constant", [4])],
        {"k": np.array([1, 2, 3, 4], np.float32)},
    )
    check(save(proto, tmp_path / "m.onnx"), {"x": np.ones((3, 4), np.float32)}, tmp_path / "out.onnx")


def branching(condition: list[onnx.NodeProto], weights: Feeds) -> onnx.ModelProto:
    def branch(kind: str) -> onnx.GraphProto:
        inner = helper.make_node(kind, ["x"], [f"of_{kind}"], name=f"in_{kind}")
        return helper.make_graph([inner], kind, [], [value(f"of_{kind}", ["n", 4])])

    node = helper.make_node("If", ["c"], ["y"], name="if", then_branch=branch("Relu"), else_branch=branch("Neg"))
    return model([*condition, node], [value("x", ["n", 4])], [value("y", ["n", 4])], weights)


def test_a_branch_that_is_always_taken_replaces_the_if(tmp_path: Path) -> None:
    x = {"x": np.array([[-1, 2, -3, 4]], np.float32)}
    assert check_kinds(branching([], {"c": np.array(False)}), x, tmp_path / "a") == ["Neg"]
    rank = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Size", ["s"], ["r"]),
        helper.make_node("Equal", ["r", "two"], ["c"]),
    ]
    assert check_kinds(branching(rank, {"two": np.array(2)}), x, tmp_path / "b") == ["Relu"]


def test_weights_of_layers_are_never_merged(tmp_path: Path) -> None:
    zeros = np.zeros(4, np.float32)
    eye = np.eye(4, dtype=np.float32)
    proto = model(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="one"),
            helper.make_node("Gemm", ["h", "w2", "b2"], ["y"], name="two"),
        ],
        [value("x", ["n", 4])],
        [value("y", ["n", 4])],
        {"w1": eye, "b1": zeros, "w2": eye, "b2": zeros},
    )
    out = check(save(proto, tmp_path / "m.onnx"), {"x": np.ones((2, 4), np.float32)}, tmp_path / "out.onnx")
    assert [tensor.name for tensor in out.graph.initializer] == ["w1", "b1", "w2", "b2"]


def test_a_weight_transposed_before_use_keeps_its_name(tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("Transpose", ["fc.weight"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])],
        [value("x", ["n", 8])],
        [value("y", ["n", 4])],
        {"fc.weight": np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)},
    )
    out = check(save(proto, tmp_path / "m.onnx"), {"x": np.ones((2, 8), np.float32)}, tmp_path / "out.onnx")
    assert [tensor.name for tensor in out.graph.initializer] == ["fc.weight.T"]


@pytest.mark.parametrize("second", [(2, 1, 0), (0, 2, 1)])
def test_a_weight_that_is_transposed_twice_becomes_two(second: tuple[int, ...], tmp_path: Path) -> None:
    proto = model(
        [
            helper.make_node("Transpose", ["w"], ["t"], perm=[0, 2, 1]),
            helper.make_node("Transpose", ["w"], ["u"], perm=list(second)),
            helper.make_node("MatMul", ["x", "t"], ["m"]),
            helper.make_node("MatMul", ["m", "u"], ["y"]),
        ],
        [value("x", [4, 4, 4])],
        [value("y", [4, 4, 4])],
        {"w": np.random.default_rng(0).standard_normal((4, 4, 4)).astype(np.float32)},
    )
    feeds = {"x": np.random.default_rng(1).standard_normal((4, 4, 4)).astype(np.float32)}
    out = check(save(proto, tmp_path / "m.onnx"), feeds, tmp_path / "out.onnx", again=True)
    assert [tensor.name for tensor in out.graph.initializer] == ["w.T", "w.T_1"]


def test_constants_that_would_grow_are_not_computed(tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("Expand", ["k", "s"], ["big"]), helper.make_node("Add", ["x", "big"], ["y"])],
        [value("x", [1024, 1024])],
        [value("y", [1024, 1024])],
        {"k": np.ones(1, np.float32), "s": np.array([1024, 1024])},
    )
    out = check(save(proto, tmp_path / "m.onnx"), {"x": np.ones((1024, 1024), np.float32)}, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_size < 2000
    assert len(out.graph.node) <= 2


def test_old_inputs_and_names_of_nodes(tmp_path: Path) -> None:
    proto = small(opset=9)
    proto.graph.input.append(value("w", [3, 2, 3, 3]))
    proto.graph.node[0].name = ""
    plain = simplify(read_model(save(proto, tmp_path / "m.onnx")), tmp_path / "out.onnx")
    graph = load_ir(plain).graph
    assert [value.name for value in graph.inputs] == ["x"]
    assert [node.name for node in graph] == ["Conv:c", "relu", "flatten"]
