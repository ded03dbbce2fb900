"""A view as a module: names, what is trained, train and eval, compile, export, copies, pickles."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from onnx_models import model, small, value
from trtcompress_graph.errors import TrtCompressError
from trtcompress_graph.torch_view import to_torch
from trtcompress_graph.torch_view.names import StateNames, initializer_name

RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def words() -> onnx.ModelProto:
    """Embedding, a reshape by lengths that are computed, LayerNorm, a product, softmax: two dynamic axes."""
    nodes = [
        helper.make_node("Gather", ["words.weight", "ids"], ["e"]),
        helper.make_node("Shape", ["ids"], ["lengths"]),
        helper.make_node("Concat", ["lengths", "heads"], ["split"], axis=0),
        helper.make_node("Reshape", ["e", "split"], ["h"]),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["t"], ["u"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["t", "u"], ["scores"]),
        helper.make_node("Div", ["scores", "root"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "t"], ["m"]),
        helper.make_node("Transpose", ["m"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Concat", ["lengths", "whole"], ["joined"], axis=0),
        helper.make_node("Reshape", ["back", "joined"], ["r"]),
        helper.make_node("LayerNormalization", ["r", "norm.weight", "norm.bias"], ["n"]),
        helper.make_node("MatMul", ["n", "out.weight.T"], ["y"]),
    ]
    weights = {
        "words.weight": array(11, 8),
        "heads": np.array([2, -1]),
        "whole": np.array([8]),
        "root": np.array(2, np.float32),
        "norm.weight": array(8),
        "norm.bias": array(8),
        "out.weight.T": array(8, 5),
    }
    ids = value("ids", ["batch", "sequence"], onnx.TensorProto.INT64)
    return model(nodes, [ids], [value("y", ["batch", "sequence", 5])], weights, opset=20)


def ids(batch: int, sequence: int) -> torch.Tensor:
    return torch.randint(0, 11, (batch, sequence), generator=torch.Generator().manual_seed(0))


def test_parameters_have_the_names_of_the_initializers() -> None:
    module = to_torch(words())
    assert [*module.state_dict()] == ["words.weight", "norm.weight", "norm.bias", "out.weight.T"]
    assert isinstance(module.get_submodule("norm"), nn.Module)
    assert module.get_parameter("out.weight.T").requires_grad


def test_shape_arithmetic_is_python() -> None:
    code = to_torch(words()).code
    assert "reshape" in code
    assert "cat(" not in code
    assert "tolist" not in code
    assert "/ 2.0" in code


def test_lengths_may_change_from_call_to_call() -> None:
    module = to_torch(words())
    whole = module(ids(3, 7))
    assert whole.shape == (3, 7, 5)
    assert torch.allclose(module(ids(3, 7)[:1]), whole[:1], atol=1e-6)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(dynamic: bool) -> None:
    torch._dynamo.reset()
    module = to_torch(words())
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for shape in ((3, 7), (2, 5)):
        assert torch.allclose(compiled(ids(*shape)), module(ids(*shape)), atol=1e-6)
    compiled(ids(2, 4)).sum().backward()
    grads = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
    module.zero_grad()
    module(ids(2, 4)).sum().backward()
    assert all(torch.allclose(grads[name], p.grad, atol=1e-5) for name, p in module.named_parameters())


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no compiler of C++")
def test_the_default_compiler_gives_the_same_gradients() -> None:
    torch._dynamo.reset()
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("Tanh", ["a"], ["y"]),
    ]
    module = to_torch(
        model(nodes, [value("x", [4, 8])], [value("y", [4, 6])], {"w": array(8, 6) / 4, "b": array(6)}, opset=20)
    )
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    gradients = []
    for called in (torch.compile(module, fullgraph=True), module):
        module.zero_grad()
        called(x).square().sum().backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    assert len(gradients[0]) == 2
    assert all(torch.allclose(one, wanted, atol=1e-5) for one, wanted in zip(*gradients, strict=True))


def test_export_with_dynamic_axes() -> None:
    module = to_torch(words())
    axes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", min=2)},)
    exported = torch.export.export(module, (ids(3, 7),), dynamic_shapes=axes)
    assert torch.allclose(exported.module()(ids(2, 4)), module(ids(2, 4)), atol=1e-6)
    assert set(exported.state_dict) == set(module.state_dict())


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies_keep_everything(again: object) -> None:
    module = to_torch(words())
    other = again(again(module))  # type: ignore[operator]
    assert torch.equal(other(ids(2, 4)), module(ids(2, 4)))
    assert [*other.state_dict()] == [*module.state_dict()]
    assert other.meta["trtcompress"] == module.meta["trtcompress"]
    with torch.no_grad():
        other.get_parameter("norm.bias").add_(1)
    assert not torch.equal(other(ids(2, 4)), module(ids(2, 4)))


def test_training_lowers_a_loss() -> None:
    module = to_torch(words()).train()
    steps = torch.optim.SGD(module.parameters(), 0.1)
    losses = []
    for _ in range(5):
        loss = module(ids(4, 6)).square().mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


def test_normalization_and_dropout_know_training() -> None:
    nodes = [
        helper.make_node("BatchNormalization", ["x", "s", "b", "mean", "var"], ["n"], momentum=0.9),
        helper.make_node("Dropout", ["n"], ["y"]),
    ]
    weights = {"s": array(3), "b": array(3), "mean": array(3), "var": np.ones(3, np.float32)}
    module = to_torch(model(nodes, [value("x", ["n", 3, 4])], [value("y", ["n", 3, 4])], weights))
    native = nn.BatchNorm1d(3)
    native.load_state_dict(
        dict(zip(native.state_dict(), map(torch.tensor, [*weights.values(), np.array(0)]), strict=True))
    )
    x = torch.randn(50, 3, 4)
    assert [name for name, _ in module.named_parameters()] == ["s", "b"]
    assert torch.allclose(module(x), native.eval()(x), atol=1e-6)
    dropped = module.train()(x)
    expected = native.train()(x)
    assert 0.4 < float((dropped == 0).float().mean()) < 0.6
    assert torch.allclose(dropped[dropped != 0], 2 * expected[dropped != 0], atol=1e-5)
    assert torch.allclose(module.get_buffer("mean"), native.running_mean)
    assert torch.allclose(module.get_buffer("var"), native.running_var)


def test_masks_shapes_and_single_numbers_are_not_trained() -> None:
    nodes = [
        helper.make_node("Add", ["x", "mask"], ["a"]),
        helper.make_node("Mul", ["a", "one"], ["b"]),
        helper.make_node("Conv", ["b", "w", "bias"], ["y"]),
    ]
    mask = np.array([[[0, -np.inf, 0]]], np.float32)
    weights = {"mask": mask, "one": np.array([3], np.float32), "w": array(1, 1, 1), "bias": array(1)}
    module = to_torch(model(nodes, [value("x", [1, 1, 3])], [value("y", [1, 1, 3])], weights))
    assert sorted(name for name, _ in module.named_parameters()) == ["bias", "w"]
    assert module.get_buffer("mask").isinf().any()


def test_masks_that_multiply_and_statistics_of_inputs_are_not_trained() -> None:
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["s"]),
        helper.make_node("Div", ["s", "deviation"], ["d"]),
        helper.make_node("Mul", ["d", "mask"], ["m"]),
        helper.make_node("Add", ["m", "window"], ["a"]),
        helper.make_node("Add", ["a", "positions"], ["p"]),
        helper.make_node("Sub", ["p", "shift"], ["y"]),
    ]
    weights = {
        "mean": array(3),
        "deviation": array(3),
        "mask": np.array([0, 1, 1], np.float32),
        "window": np.array([0, -100, 0], np.float32),
        "positions": array(3),
        "shift": array(3),
    }
    module = to_torch(model(nodes, [value("x", [2, 3])], [value("y", [2, 3])], weights))
    assert set(module.state_dict()) == set(weights)
    assert sorted(name for name, _ in module.named_parameters()) == ["positions", "shift"]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_stored_operands_of_one_element_keep_their_axes(data: st.DataObject) -> None:
    """`Gather` takes the axes of its indices over, an elementwise operator those of the longer shape."""
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3), label="shape")
    ones = [1] * data.draw(st.integers(0, 4), label="axes of the operand")
    axis = data.draw(st.integers(-len(shape), len(shape) - 1), label="axis")
    index = data.draw(st.integers(-shape[axis], shape[axis] - 1), label="index")
    nodes = [
        helper.make_node("Gather", ["x", "i"], ["g"], axis=axis),
        *(helper.make_node(name, ["x", "c"], [name]) for name in ("Add", "Mul", "Pow", "Greater")),
    ]
    weights = {"i": np.full(ones, index, np.int64), "c": np.full(ones, 2, np.float32)}
    kinds = dict.fromkeys(("g", "Add", "Mul", "Pow"), TensorProto.FLOAT) | {"Greater": TensorProto.BOOL}
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    proto, x = model(nodes, [value("x", shape)], outputs, weights), array(*shape)
    told = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    for mine, wanted in zip(to_torch(proto)(torch.from_numpy(x)), told, strict=True):
        assert mine.shape == wanted.shape
        assert np.allclose(mine.detach().numpy(), wanted)


@pytest.mark.parametrize("opset", [9, 13, 20])
def test_opsets(opset: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(small(opset).SerializeToString())
    assert to_torch(path)(torch.rand(3, 2, 4, 4)).shape == (3, 48)


NAMES = st.lists(
    st.text(st.sampled_from("ab.0_/:\"'\\ %\n;(ö"), min_size=1, max_size=7)
    | st.sampled_from(["training", "forward", "else", "a.graph", "None", "T", "weight.T", "weight", "constants.0"]),
    min_size=1,
    max_size=6,
    unique=True,
)


@given(NAMES)
def test_names_can_be_told_back_and_nest(names: list[str]) -> None:
    state = StateNames(names)
    found = {name: state.of(name) for name in names}
    assert {initializer_name(held) for held in found.values()} == set(names)
    root = nn.Module()
    for held in found.values():
        *folders, leaf = held.split(".")
        at = root
        for folder in folders:
            if folder not in at._modules:
                at.add_module(folder, nn.Module())
            at = at.get_submodule(folder)
        at.register_buffer(leaf, torch.zeros(1))
    assert set(root.state_dict()) == set(found.values())
    assert not set("\"'\\\n;(") & set("".join(found.values()))


@pytest.mark.parametrize("name", ['w"), __import__("os").abort(), ("', "a\nimport os", "class", "1", "x y", "*args"])
def test_names_never_become_code(name: str) -> None:
    nodes = [helper.make_node("Mul", [name, f"{name}.w"], [f"{name}.y"], name=name)]
    proto = model(nodes, [value(name, [2, 3])], [value(f"{name}.y", [2, 3])], {f"{name}.w": array(2, 3)})
    module = to_torch(proto)
    x = torch.rand(2, 3)
    weight = numpy_helper.to_array(proto.graph.initializer[0])
    assert torch.allclose(module(x), x * torch.from_numpy(weight.copy()))
    assert [initializer_name(held) for held in module.state_dict()] == [f"{name}.w"]
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), module(x))


def test_attributes_never_become_code() -> None:
    equation = "ij,jk->ik\t"
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation=equation)
    proto = model([node], [value("x", [2, 3])], [value("y", [2, 4])], {"w": array(3, 4)})
    x = torch.rand(2, 3)
    module = to_torch(proto)
    assert torch.allclose(module(x), x @ module.get_parameter("w"))
    node.attribute[0].s = b"'),__import__('os').abort(),('"
    bad = model([node], [value("x", [2, 3])], [value("y", [2, 4])], {"w": array(3, 4)})
    with pytest.raises((TrtCompressError, RuntimeError)):
        to_torch(bad)(x)
