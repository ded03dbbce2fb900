"""Weights back into the file they came from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from onnx_models import model, small, value
from trtcompress_graph.errors import ModelError, UsageError
from trtcompress_graph.load import read_model
from trtcompress_graph.torch_view import settle_batchnorm, to_onnx, to_torch

X = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def saved(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def weights(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
def test_equal_to_the_byte_where_nothing_was_trained(opset: int, tmp_path: Path) -> None:
    path = saved(small(opset), tmp_path / "m.onnx")
    made = to_onnx(to_torch(path), like=path, out=tmp_path / "out.onnx")
    assert made.path.read_bytes() == path.read_bytes()
    assert made.digest == read_model(path).digest


def test_what_was_trained_changes_and_nothing_else(tmp_path: Path) -> None:
    path = saved(small(9), tmp_path / "m.onnx")
    module = to_torch(path)
    with torch.no_grad():
        module.get_parameter("w").add_(0.5)
    to_onnx(module, like=path, out=tmp_path / "out.onnx")
    before, after = onnx.load(path), onnx.load(tmp_path / "out.onnx")
    assert after.graph.node == before.graph.node
    assert after.opset_import == before.opset_import
    assert [t.name for t in after.graph.initializer] == [t.name for t in before.graph.initializer]
    assert np.allclose(weights(tmp_path / "out.onnx")["w"], weights(path)["w"] + 0.5)
    assert np.array_equal(weights(tmp_path / "out.onnx")["b"], weights(path)["b"])
    assert torch.equal(to_torch(tmp_path / "out.onnx")(X), module(X))


@pytest.mark.parametrize("by", [0.0, 0.5])
@pytest.mark.parametrize("source", ["path", "model", "proto", "external"])
def test_without_a_file_to_write_it_is_the_graph_in_memory(source: str, by: float, tmp_path: Path) -> None:
    """The same to the byte as what would be written, and a copy of its own."""
    path = saved(small(), tmp_path / "m.onnx")
    if source == "external":
        onnx.save(small(), path, save_as_external_data=True, location="m.data", size_threshold=100)
    like = {"model": read_model(path), "proto": onnx.load(path)}.get(source, path)
    module = to_torch(like)
    with torch.no_grad():
        module.get_parameter("w").add_(by)
    made = to_onnx(module, like=like)
    assert isinstance(made, onnx.ModelProto)
    if by:
        out = to_onnx(module, like=like, out=tmp_path / "out.onnx").path
        assert made.SerializeToString(deterministic=True) == out.read_bytes()
    else:
        assert made == onnx.load(path)
    if source in ("path", "model"):
        assert (made.SerializeToString(deterministic=True) == path.read_bytes()) == (by == 0.0)
    made.graph.name = "mine"
    assert (like if isinstance(like, onnx.ModelProto) else onnx.load(path)).graph.name != "mine"


def test_weights_of_constant_nodes_and_of_half_precision(tmp_path: Path) -> None:
    held = numpy_helper.from_array(np.ones((4, 3), np.float16), "anything")
    nodes = [
        helper.make_node("Constant", [], ["w.0"], value=held),
        helper.make_node("MatMul", ["x", "w.0"], ["y"]),
    ]
    half = onnx.TensorProto.FLOAT16
    path = saved(model(nodes, [value("x", [2, 4], half)], [value("y", [2, 3], half)], {}), tmp_path / "m.onnx")
    module = to_torch(path)
    assert module.get_parameter("w.0").dtype == torch.float16
    wide = module.float()
    with torch.no_grad():
        wide.get_parameter("w.0").mul_(2)
    to_onnx(wide, like=path, out=tmp_path / "out.onnx")
    after = numpy_helper.to_array(onnx.load(tmp_path / "out.onnx").graph.node[0].attribute[0].t)
    assert after.dtype == np.float16
    assert (after == 2).all()


def test_running_statistics_are_written_back(tmp_path: Path) -> None:
    node = helper.make_node("BatchNormalization", ["x", "s", "b", "mean", "var"], ["y"])
    held = {name: np.ones(2, np.float32) for name in ("s", "b", "mean", "var")}
    proto = model([node], [value("x", ["n", 2, 4, 4])], [value("y", ["n", 2, 4, 4])], held)
    path = saved(proto, tmp_path / "m.onnx")
    module = to_torch(path).train()
    module(X)
    to_onnx(module, like=path, out=tmp_path / "out.onnx")
    assert np.allclose(weights(tmp_path / "out.onnx")["mean"], 0.9 + 0.1 * X.mean((0, 2, 3)).numpy(), atol=1e-6)
    assert np.array_equal(weights(tmp_path / "out.onnx")["s"], held["s"])


def test_a_batchnorm_that_is_put_back_changes_nothing_until_it_is_trained(tmp_path: Path) -> None:
    path = saved(small(), tmp_path / "m.onnx")
    plain, module = to_torch(path), to_torch(path, restore_batchnorm=True)
    assert torch.allclose(module(X), plain(X), atol=1e-6)
    to_onnx(module, like=path, out=tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == path.read_bytes()


def test_a_batchnorm_that_was_settled_trains_and_is_merged(tmp_path: Path) -> None:
    path = saved(small(), tmp_path / "m.onnx")
    plain, module = to_torch(path), to_torch(path, restore_batchnorm=True)
    settle_batchnorm(module, [(X,)])
    assert torch.allclose(module(X), plain(X), atol=1e-5)
    assert torch.allclose(module.train()(X), plain(X), atol=1e-4)
    steps = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(3):
        module(X).square().mean().backward()
        steps.step()
    module.eval()
    assert not torch.allclose(module(X), plain(X), atol=1e-2)
    to_onnx(module, like=path, out=tmp_path / "out.onnx")
    assert len(onnx.load(tmp_path / "out.onnx").graph.node) == len(onnx.load(path).graph.node)
    assert torch.allclose(to_torch(tmp_path / "out.onnx")(X), module(X), atol=1e-5)


def test_norms_are_not_settled_without_a_batch(tmp_path: Path) -> None:
    path = saved(small(), tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="there is no batch"):
        settle_batchnorm(to_torch(path, restore_batchnorm=True), [])
    settle_batchnorm(to_torch(path), [])  # it has no norm


def test_another_module_or_another_model_is_refused(tmp_path: Path) -> None:
    path = saved(small(), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="not made by to_torch"):
        to_onnx(torch.nn.Linear(3, 3), like=path)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="is a folder"):
        to_onnx(to_torch(path), like=path, out=tmp_path)
    with pytest.raises(ModelError, match="not made by to_torch"):
        to_onnx(torch.fx.symbolic_trace(torch.nn.ReLU()), like=path, out=tmp_path / "out.onnx")
    node = helper.make_node("Relu", ["x"], ["y"])
    other = saved(model([node], [value("x", [2])], [value("y", [2])], {}), tmp_path / "other.onnx")
    alike = onnx.load(path)
    changed = next(node for node in alike.graph.node if node.op_type == "Relu")
    changed.op_type = "Tanh"
    for like in (other, saved(alike, tmp_path / "alike.onnx"), alike):
        with pytest.raises(ModelError, match="nodes are others"):
            to_onnx(to_torch(path), like=like, out=tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small(), path, save_as_external_data=True, location="m.data", size_threshold=100)
    module = to_torch(path)
    with torch.no_grad():
        module.get_parameter("w").add_(1)
    to_onnx(module, like=path, out=tmp_path / "other" / "out.onnx")
    assert torch.equal(to_torch(tmp_path / "other" / "out.onnx")(X), module(X))
