"""Which graphs older releases of TensorRT get in a kit, and what is said where they get none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtcompress.kit_opsets import with_older
from trtcompress_engines.kit.write import KitModel
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import ModelError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model

ORIN, XAVIER = (resolve_target(name) for name in ("jetson-agx-orin", "jetson-xavier-nx"))


def write(path: Path, nodes: list[onnx.NodeProto], opset: int, *constants: onnx.TensorProto) -> Model:
    shapes = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8, 8]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [next(shapes)], [next(shapes)], list(constants))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return read_model(path)


@pytest.fixture
def plain(tmp_path: Path) -> Model:
    return write(tmp_path / "plain.onnx", [helper.make_node("Gelu", ["x"], ["y"], name="act")], 20)


@pytest.fixture
def triangle(tmp_path: Path) -> Model:
    return write(tmp_path / "tri.onnx", [helper.make_node("Trilu", ["x"], ["y"], name="mask")], 20)


@pytest.fixture
def bits(tmp_path: Path) -> Model:
    """The greatest of truth values came with opset 20."""
    nodes = [
        helper.make_node("Less", ["x", "limit"], ["low"], name="less"),
        helper.make_node("ReduceMax", ["low"], ["any"], name="mean"),
        helper.make_node("Where", ["any", "x", "limit"], ["y"], name="where"),
    ]
    return write(tmp_path / "bits.onnx", nodes, 20, numpy_helper.from_array(np.float32(0), "limit"))


@pytest.fixture
def int4(tmp_path: Path) -> Model:
    """Its weights have a type that no older DequantizeLinear takes."""
    weight = helper.make_tensor("w", TensorProto.INT4, [8, 8], [1] * 64)
    scale = numpy_helper.from_array(np.float32(0.5), "s")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], name="dq"),
        helper.make_node("MatMul", ["x", "d"], ["y"], name="fc"),
    ]
    return write(tmp_path / "int4.onnx", nodes, 21, weight, scale)


def opset(model: Model) -> int:
    return int(onnx.load(model.path).opset_import[0].version)


def test_a_device_whose_every_parser_is_old_gets_the_older_graph_alone(plain: Model, tmp_path: Path):
    models, (note,) = with_older({"reference": KitModel(plain, plain.digest)}, XAVIER, None, tmp_path)
    made = models["reference"]
    assert (opset(made.graph), made.older, made.digest) == (13, None, plain.digest)
    assert note == "reference: before TensorRT 10.0 it is built of a graph of opset 13"


def test_a_device_of_old_and_new_releases_gets_both(plain: Model, tmp_path: Path):
    models, _ = with_older({"reference": KitModel(plain, plain.digest)}, ORIN, None, tmp_path)
    made = models["reference"]
    assert made.graph == plain
    assert made.older is not None
    assert made.older.graph is not None
    assert (made.older.before, opset(made.older.graph)) == ((10, 0), 13)


def test_what_every_release_takes_stays(tmp_path: Path):
    old = write(tmp_path / "old.onnx", [helper.make_node("Relu", ["x"], ["y"], name="act")], 13)
    models, notes = with_older({"reference": KitModel(old, old.digest)}, XAVIER, None, tmp_path)
    assert (models["reference"].graph, notes) == (old, [])


def test_int8_that_cannot_be_brought_down_is_by_the_cache(int4: Model, plain: Model, tmp_path: Path):
    for target in (XAVIER, ORIN):
        folder = tmp_path / target.name
        folder.mkdir()
        models, (note,) = with_older({"trt-int8": KitModel(int4, int4.digest)}, target, plain, folder)
        made = models["trt-int8"]
        older = made.older
        graph, cache = (made.graph, made.cache) if older is None else (older.graph, older.cache)
        assert graph is not None
        assert (opset(graph), cache, made.digest) == (13, True, int4.digest)
        assert "INT8 is by calibration.cache and not by Q/DQ pairs (node 'dq': DequantizeLinear cannot be" in note


def test_an_engine_that_cannot_be_brought_down_is_refused_by_its_operator(bits: Model, tmp_path: Path):
    models, (note,) = with_older({"trt-fp16": KitModel(bits, bits.digest)}, ORIN, None, tmp_path)
    older = models["trt-fp16"].older
    assert older is not None
    assert (older.graph, older.since) == (None, None)
    assert older.refused == "node 'mean': ReduceMax cannot be written in opset 13: its input 'low' is of tensor(bool)"
    assert note == f"trt-fp16: before TensorRT 10.0 it cannot be built: {older.refused}"


def test_the_oldest_releases_alone_go_without_what_they_do_not_have(triangle: Model, tmp_path: Path):
    models, notes = with_older({"trt-fp16": KitModel(triangle, triangle.digest)}, ORIN, None, tmp_path)
    older = models["trt-fp16"].older
    assert older is not None
    assert older.graph is not None
    assert (older.before, older.since, opset(older.graph)) == ((10, 0), (8, 5), 17)
    assert older.refused == "node 'mask': Trilu cannot be written in opset 13: the parser does not have it"
    assert notes == [
        f"trt-fp16: before TensorRT 8.5 it cannot be built: {older.refused}",
        "trt-fp16: before TensorRT 10.0 it is built of a graph of opset 17",
    ]


def test_a_kit_that_no_release_could_build_is_refused(bits: Model, tmp_path: Path):
    told = {"reference": KitModel(bits, bits.digest)}
    with pytest.raises(ModelError, match="the parsers of Jetson Xavier NX take opset 17 at the most: ReduceMax cannot"):
        with_older(told, XAVIER, None, tmp_path)
