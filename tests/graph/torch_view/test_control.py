"""If, Loop and Scan in a view: branches, weights inside them, gradients, export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_models import model, value
from trtcompress_graph.torch_view import to_onnx, to_torch

RNG = np.random.default_rng(0)
BOOL = TensorProto.BOOL


def branch(name: str, weight: str, operator: str, array: NDArray[np.float32]) -> onnx.GraphProto:
    """x and a weight of its own, through an operator."""
    node = helper.make_node(operator, ["x", weight], [f"{name}_y"])
    held = numpy_helper.from_array(array, weight)
    return helper.make_graph([node], name, [], [value(f"{name}_y", [2, 3])], [held])


def chosen(inner: tuple[str, str] = ("w.then", "w.else")) -> onnx.ModelProto:
    """x times one weight where its sum is positive, else plus another; then times a weight outside."""
    arrays = [RNG.random((2, 3)).astype(np.float32) + 1 for _ in range(3)]
    zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node(
            "If",
            ["positive"],
            ["taken"],
            then_branch=branch("then", inner[0], "Mul", arrays[0]),
            else_branch=branch("else", inner[1], "Add", arrays[1]),
        ),
        helper.make_node("Mul", ["taken", "scale"], ["y"]),
    ]
    held = [zero, numpy_helper.from_array(arrays[2], "scale")]
    graph = helper.make_graph(nodes, "g", [value("x", [2, 3])], [value("y", [2, 3])], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def runtime(proto: onnx.ModelProto, x: torch.Tensor) -> torch.Tensor:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


@pytest.mark.parametrize("sign", [1, -1])
def test_each_branch_and_its_weights(sign: int, tmp_path: Path) -> None:
    proto = chosen()
    module = to_torch(proto)
    assert sorted(module.state_dict()) == ["scale", "w.%65lse", "w.then"]
    x = sign * torch.rand(2, 3)
    assert torch.allclose(module(x), runtime(proto, x))
    module(x).sum().backward()
    taken, other = ("w.then", "w.%65lse") if sign > 0 else ("w.%65lse", "w.then")
    assert module.get_parameter(taken).grad is not None
    assert module.get_parameter(other).grad is None
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    with torch.no_grad():
        module.get_parameter(taken).mul_(2)
    to_onnx(module, like=path, out=tmp_path / "out.onnx")
    assert torch.allclose(module(x), runtime(onnx.load(tmp_path / "out.onnx"), x))


def test_names_that_two_branches_share_stay_as_they_are(tmp_path: Path) -> None:
    proto, given = chosen(("w", "w")), onnx.ModelProto()
    given.CopyFrom(proto)
    module = to_torch(proto)
    assert list(module.state_dict()) == ["scale"], "neither can be found again by its name"
    assert proto == given, "a graph in memory is not changed"
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    assert to_onnx(module, like=path, out=tmp_path / "same.onnx").path.read_bytes() == path.read_bytes()
    by_name = {a.name: numpy_helper.to_array(a.g.initializer[0]) for a in proto.graph.node[2].attribute}
    then, other = (torch.from_numpy(by_name[f"{which}_branch"]) for which in ("then", "else"))
    x = torch.rand(2, 3)
    scale = module.get_parameter("scale")
    assert torch.allclose(module(x), x * then * scale)
    assert torch.allclose(module(-x), (other - x) * scale)
    with torch.no_grad():
        scale.mul_(2)
    trained = to_onnx(module, like=path)
    for sign in (1, -1):
        assert torch.allclose(runtime(trained, sign * x), module(sign * x))


def test_scales_that_two_branches_share_by_name_leave_their_weights_as_they_are(tmp_path: Path) -> None:
    """An integer weight is written by the scale that the file has under its name."""
    branches = {}
    for which, step in (("then", 0.1), ("else", 0.5)):
        nodes = [
            helper.make_node("DequantizeLinear", [f"{which}_w", "step"], [f"{which}_dq"]),
            helper.make_node("Mul", ["x", f"{which}_dq"], [f"{which}_y"]),
        ]
        held = {f"{which}_w": RNG.integers(1, 100, (2, 3)).astype(np.int8), "step": np.array(step, np.float32)}
        tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
        graph = helper.make_graph(nodes, which, [], [value(f"{which}_y", [2, 3])], tensors)
        branches[f"{which}_branch"] = graph
    proto = chosen()
    choice = proto.graph.node[2]
    for attribute in choice.attribute:
        attribute.g.CopyFrom(branches[attribute.name])
    module, path = to_torch(proto), tmp_path / "m.onnx"
    onnx.save(proto, path)
    assert to_onnx(module, like=path, out=tmp_path / "same.onnx").path.read_bytes() == path.read_bytes()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    trained = to_onnx(module, like=path)
    for sign in (1, -1):
        x = sign * torch.rand(2, 3)
        assert torch.allclose(runtime(trained, x), module(x))


def test_what_a_function_stores_stays_as_it_is(tmp_path: Path) -> None:
    """It is in the graph once for each call, and under other names than in the file."""
    held = numpy_helper.from_array(np.arange(1, 4, dtype=np.float32), "c")
    nodes = [helper.make_node("Constant", [], ["c"], value=held), helper.make_node("Mul", ["a", "c"], ["b"])]
    function = helper.make_function("own", "Scaled", ["a"], ["b"], nodes, [helper.make_opsetid("", 20)])
    calls = [helper.make_node("Scaled", [one], [two], domain="own") for one, two in (("h", "i"), ("i", "y"))]
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), *calls],
        [value("x", [2, 3])],
        [value("y", [2, 3])],
        {"w": RNG.random((3, 3)).astype(np.float32)},
        opset=20,
    )
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    module, path = to_torch(proto), tmp_path / "m.onnx"
    onnx.save(proto, path)
    assert to_onnx(module, like=path, out=tmp_path / "same.onnx").path.read_bytes() == path.read_bytes()
    with torch.no_grad():
        module.get_parameter("w").mul_(2)
    x = torch.rand(2, 3)
    assert torch.allclose(runtime(to_onnx(module, like=path), x), module(x))


def test_export_keeps_both_branches() -> None:
    proto = chosen()
    exported = torch.export.export(to_torch(proto), (torch.rand(2, 3),), strict=False).module()
    for x in (torch.rand(2, 3), -torch.rand(2, 3)):
        assert torch.allclose(exported(x), runtime(proto, x))


def test_export_of_a_branch_that_returns_what_came_in() -> None:
    proto = chosen()
    for attribute, operator in zip(proto.graph.node[2].attribute, ("Identity", "Neg"), strict=True):
        output = f"{attribute.name}_y"
        node = helper.make_node(operator, ["x"], [output])
        attribute.g.CopyFrom(helper.make_graph([node], attribute.g.name, [], [value(output, [2, 3])]))
    exported = torch.export.export(to_torch(proto), (torch.rand(2, 3),)).module()
    for x in (torch.rand(2, 3), -torch.rand(2, 3)):
        assert torch.allclose(exported(x), runtime(proto, x))


def test_a_branch_by_a_length_is_chosen_where_the_rank_is_unknown() -> None:
    """`x.squeeze(1)` as exporters write it; the axes of a reshape that an input tells are unknown."""
    squeezed, same = (
        helper.make_node(*args) for args in (("Squeeze", ["r", "one"], ["s"]), ("Identity", ["r"], ["i"]))
    )
    nodes = [
        helper.make_node("Reshape", ["x", "told"], ["r"]),
        helper.make_node("Shape", ["r"], ["lengths"]),
        helper.make_node("Gather", ["lengths", "place"], ["length"]),
        helper.make_node("Equal", ["length", "count"], ["single"]),
        helper.make_node(
            "If",
            ["single"],
            ["y"],
            then_branch=helper.make_graph([squeezed], "then", [], [value("s", None)]),
            else_branch=helper.make_graph([same], "else", [], [value("i", None)]),
        ),
    ]
    weights = {"one": np.array([1]), "place": np.array(1), "count": np.array(1)}
    given = [value("x", [6]), value("told", ["axes"], TensorProto.INT64)]
    view = to_torch(model(nodes, given, [value("y", None)], weights))
    assert "shape_tensor" not in view.code
    assert view(torch.rand(6), torch.tensor([6, 1])).shape == (6,)
    assert view(torch.rand(6), torch.tensor([2, 3])).shape == (2, 3)


@pytest.mark.parametrize(("shape", "length"), [((2, 3), 6), ((1, 1, 2, 3), 3)])
def test_a_length_that_a_branch_alone_reads_is_read_there(shape: tuple[int, ...], length: int) -> None:
    """The rank is unknown, and is what chooses the branch: of two axes there is no fourth length."""
    read = helper.make_node("Gather", ["lengths", "place"], ["fourth"])
    count = helper.make_node("Size", ["x"], ["all"])
    nodes = [
        helper.make_node("Reshape", ["x", "told"], ["r"]),
        helper.make_node("Shape", ["r"], ["lengths"]),
        helper.make_node("Size", ["told"], ["rank"]),
        helper.make_node("Equal", ["rank", "four"], ["whole"]),
        helper.make_node(
            "If",
            ["whole"],
            ["y"],
            then_branch=helper.make_graph([read], "then", [], [value("fourth", [], TensorProto.INT64)]),
            else_branch=helper.make_graph([count], "else", [], [value("all", [], TensorProto.INT64)]),
        ),
    ]
    weights = {"place": np.array(3), "four": np.array(4)}
    given = [value("x", [6]), value("told", ["axes"], TensorProto.INT64)]
    view = to_torch(model(nodes, given, [value("y", [], TensorProto.INT64)], weights))
    assert int(view(torch.rand(6), torch.tensor(shape))) == length


def test_a_constant_condition_leaves_one_branch() -> None:
    proto = chosen()
    proto.graph.initializer.append(numpy_helper.from_array(np.array(False), "never"))
    proto.graph.node[2].input[0] = "never"
    module = to_torch(proto)
    assert sorted(module.state_dict()) == ["scale", "w.%65lse"]
    assert not list(module.children()) or all(not list(part.children()) for part in module.children())


def looped() -> onnx.ModelProto:
    """Three times x = tanh(x @ w); the results of all times too."""
    nodes = [
        helper.make_node("MatMul", ["state", "w"], ["product"]),
        helper.make_node("Tanh", ["product"], ["next"]),
        helper.make_node("Identity", ["going"], ["still"]),
        helper.make_node("Identity", ["next"], ["kept"]),
    ]
    given = [value("i", [], TensorProto.INT64), value("going", [], BOOL), value("state", [2, 3])]
    body = helper.make_graph(
        nodes, "body", given, [value("still", [], BOOL), value("next", [2, 3]), value("kept", [2, 3])]
    )
    loop = helper.make_node("Loop", ["count", "", "x"], ["y", "all"], body=body)
    held = [
        numpy_helper.from_array(np.array(3), "count"),
        numpy_helper.from_array(RNG.standard_normal((3, 3)).astype(np.float32), "w"),
    ]
    graph = helper.make_graph([loop], "g", [value("x", [2, 3])], [value("y", [2, 3]), value("all", [3, 2, 3])], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def scanned() -> onnx.ModelProto:
    """Running sums over the rows of x, each row times a weight first."""
    nodes = [
        helper.make_node("Mul", ["row", "w"], ["product"]),
        helper.make_node("Add", ["state", "product"], ["next"]),
        helper.make_node("Identity", ["next"], ["kept"]),
    ]
    body = helper.make_graph(
        nodes, "body", [value("state", [3]), value("row", [3])], [value("next", [3]), value("kept", [3])]
    )
    scan = helper.make_node(
        "Scan", ["start", "x"], ["y", "all"], body=body, num_scan_inputs=1, scan_input_directions=[1]
    )
    held = [
        numpy_helper.from_array(np.zeros(3, np.float32), "start"),
        numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w"),
    ]
    graph = helper.make_graph([scan], "g", [value("x", [2, 3])], [value("y", [3]), value("all", [2, 3])], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_a_loop_of_no_times_collects_nothing() -> None:
    proto = looped()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(0), "count"))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = torch.rand(2, 3)
    for made, told in zip(to_torch(proto)(x), session.run(None, {"x": x.numpy()}), strict=True):
        assert torch.equal(made, torch.from_numpy(told))
        assert made.shape == told.shape


@pytest.mark.parametrize("build", [looped, scanned])
def test_loops_and_their_gradients(build: object) -> None:
    proto = build()  # type: ignore[operator]
    module = to_torch(proto)
    x = torch.rand(2, 3)
    assert torch.allclose(module(x)[0], runtime(proto, x), atol=1e-6)
    wide = module.double()

    def function(given: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.func.functional_call(wide, {"w": weight}, (given,))

    given = (x.double().requires_grad_(), wide.get_parameter("w").detach().requires_grad_())
    assert torch.autograd.gradcheck(function, given)
