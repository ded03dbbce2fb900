from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_models import model, save, small, value
from trtcompress_graph.errors import ModelError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model


def refused(proto: onnx.ModelProto, tmp_path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read_model(save(proto, tmp_path / "m.onnx"))
    assert caught.value.exit_code == 3
    assert caught.value.hint
    assert "m.onnx" in caught.value.where
    return caught.value


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the file is empty"),
        (b"\x08\x09 what is this?" * 40, "not an ONNX file"),
        (small().SerializeToString()[:200], "not an ONNX file, or it is cut off"),
        (pickle.dumps({"a": 1}), "PyTorch file"),
        (b"PK\x03\x04rest", "PyTorch file"),
    ],
    ids=["empty", "random", "truncated", "pickle", "zip"],
)
def test_what_is_not_onnx(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=told) as caught:
        read_model(path)
    assert caught.value.hint


def test_arrays_are_no_model(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", x=np.zeros(3))
    np.save(tmp_path / "m.onnx", np.zeros(3))
    (tmp_path / "m.onnx.npy").rename(tmp_path / "m.onnx")
    for name in ("samples.npz", "m.onnx"):
        with pytest.raises(ModelError, match="arrays, not a model") as caught:
            read_model(tmp_path / name)
        assert "--data" in caught.value.hint


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a file"):
        read_model(tmp_path)


def test_opsets_that_are_too_old_or_too_new(tmp_path: Path) -> None:
    proto = small()
    proto.opset_import[0].version = 8
    assert "opset 8 is older than 9" in refused(proto, tmp_path).what
    proto.opset_import[0].version = 999
    assert "newer" in refused(proto, tmp_path).what


def test_domains_and_operators_that_are_not_known(tmp_path: Path) -> None:
    proto = small()
    proto.graph.node[1].domain = "my.ops"
    error = refused(proto, tmp_path)
    assert "does not import the operator domain 'my.ops'" in error.what
    assert "node 'relu' (Relu)" in error.where
    proto.opset_import.add(domain="my.ops", version=1)
    assert "unknown operator 'Relu' of domain 'my.ops'" in refused(proto, tmp_path).what
    proto = small()
    proto.graph.node[1].op_type = "Relum"
    assert "unknown operator 'Relum'" in refused(proto, tmp_path).what


def test_operators_of_onnx_runtime_and_functions_of_the_model_are_known(tmp_path: Path) -> None:
    proto = small()
    proto.graph.node[1].domain = "com.microsoft"
    proto.graph.node[1].op_type = "Gelu"
    proto.opset_import.add(domain="com.microsoft", version=1)
    assert read_model(save(proto, tmp_path / "m.onnx"))
    proto.graph.node[1].domain = "mine"
    proto.graph.node[1].op_type = "Twice"
    proto.opset_import.add(domain="mine", version=1)
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    proto.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    assert read_model(save(proto, tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (helper.make_tensor_type_proto(TensorProto.STRING, [1]), "tensors of type string"),
        (helper.make_tensor_type_proto(TensorProto.COMPLEX64, [1]), "tensors of type complex64"),
        (helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1])), "a sequence"),
        (helper.make_tensor_type_proto(TensorProto.FLOAT, None), "declares no shape"),
    ],
    ids=["string", "complex", "sequence", "no shape"],
)
def test_inputs_that_are_not_tensors_of_numbers(tmp_path: Path, kind: onnx.TypeProto, told: str) -> None:
    proto = model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [onnx.ValueInfoProto(name="x", type=kind)],
        [onnx.ValueInfoProto(name="y", type=kind)],
        {},
    )
    error = refused(proto, tmp_path)
    assert told in error.what
    assert "input 'x'" in error.where


def test_undefined_inputs_and_cycles(tmp_path: Path) -> None:
    proto = small()
    proto.graph.node[1].input[0] = "nowhere"
    assert "nowhere" in refused(proto, tmp_path).what
    proto = small()
    proto.graph.node[0].input[0] = "r"
    assert "r" in refused(proto, tmp_path).what


def test_what_only_the_runtime_finds(tmp_path: Path) -> None:
    proto = small()
    proto.graph.node[0].attribute[0].ints[:] = [1, 1, 1]
    assert "ONNX Runtime refuses" in refused(proto, tmp_path).what


def test_strings_are_no_outputs(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)
    proto = model([node], [value("x", [1])], [value("y", [1], TensorProto.STRING)], {})
    assert "output 'y'" in refused(proto, tmp_path).where


damage = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.one_of(st.none(), st.integers(0, 10_000)), damage=damage)
def test_damaged_files_give_a_model_that_loads_or_a_model_error(
    tmp_path: Path, keep: int | None, damage: list[tuple[int, int]]
) -> None:
    data = bytearray(small().SerializeToString())
    for place, byte in damage:
        data[place % len(data)] = byte
    path = tmp_path / "m.onnx"
    path.write_bytes(data if keep is None else data[: keep % len(data)])
    read = read_or_refuse(path)
    if read is not None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(str(path), options)
        assert [spec.name for spec in read.inputs] == [spec.name for spec in session.get_inputs()]


def read_or_refuse(path: Path) -> Model | None:
    try:
        return read_model(path)
    except ModelError:
        return None
