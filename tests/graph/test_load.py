from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from assets import asset
from onnx_models import model, run, save, small, value
from trtcompress_graph import load
from trtcompress_graph.errors import MissingPathError, ModelError
from trtcompress_graph.load import copy_model, load_ir, read_model, save_ir
from trtcompress_graph.model import TensorSpec


def test_describes_inputs_and_outputs(tmp_path: Path) -> None:
    path = save(small(), tmp_path / "m.onnx")
    read = read_model(path)
    assert read.inputs == (TensorSpec("x", "float32", ("batch", 2, 4, 4)),)
    assert read.outputs == (TensorSpec("y", "float32", ("batch", 48)),)
    assert read.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_initializers_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    proto = small(opset=9)
    proto.graph.input.append(value("w", [3, 2, 3, 3]))
    assert [spec.name for spec in read_model(save(proto, tmp_path / "m.onnx")).inputs] == ["x"]


def test_an_axis_without_a_name_gets_one(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    proto = model([node], [value("x", [None, 3, "?"])], [value("y", [None, 3, None])], {})
    read = read_model(save(proto, tmp_path / "m.onnx"))
    assert read.inputs[0].shape == ("x_0", 3, "x_2")
    assert read.outputs[0].shape == ("y_0", 3, "y_2")


def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path: Path) -> None:
    for index, path in enumerate([save(small(), tmp_path / "m.onnx"), asset("rapidocr-onnxruntime", "rec_infer.onnx")]):
        read = read_model(path)
        first = save_ir(load_ir(read), tmp_path / f"a{index}.onnx")
        second = save_ir(load_ir(first), tmp_path / f"b{index}.onnx")
        assert first.digest == second.digest
        assert first.inputs == read.inputs
        assert copy_model(read, tmp_path / "copies" / f"{index}.onnx").digest == read.digest


def external(tmp_path: Path, location: str = "weights.bin") -> onnx.ModelProto:
    """The small model with its weight in a file of its own."""
    proto = small()
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "w")
    (tmp_path / "weights.bin").write_bytes(b"\0" * 8 + weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "8"), ("length", "216")):
        weight.external_data.add(key=key, value=text)
    return proto


def test_external_data_counts_in_the_digest_and_moves_with_a_copy(tmp_path: Path) -> None:
    proto = external(tmp_path)
    read = read_model(save(proto, tmp_path / "m.onnx"))
    copied = copy_model(read, tmp_path / "elsewhere" / "n.onnx")
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 2, 4, 4)).astype(np.float32)}
    assert np.array_equal(run(read.path, feeds)[0], run(copied.path, feeds)[0])
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[100] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert read_model(read.path).digest != read.digest


def test_large_weights_go_into_one_file_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", ["n", 64])],
        [value("y", ["n", 64])],
        {"w": np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)},
    )
    read = read_model(save(proto, tmp_path / "m.onnx"))
    monkeypatch.setattr(load, "EXTERNAL_ABOVE", 1000)
    saved = save_ir(load_ir(read), tmp_path / "big.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data", "m.onnx"]
    assert saved.path.stat().st_size < 1000
    # Saving over itself must not pull the mapped weights from under the model.
    again = save_ir(load_ir(saved), saved.path)
    assert again.digest == saved.digest
    feeds = {"x": np.ones((3, 64), np.float32)}
    assert np.array_equal(run(read.path, feeds)[0], run(again.path, feeds)[0])


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(small(), tmp_path / "m.onnx")
    before = path.read_bytes()
    loaded = load_ir(read_model(path))

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        save_ir(loaded, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError) as caught:
        read_model(tmp_path / "none.onnx")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("/etc/passwd", "outside"),
        ("../weights.bin", "outside"),
        ("..\\weights.bin", "outside"),
        ("C:\\weights.bin", "outside"),
        ("link.bin", "outside"),
        ("", "outside"),
        ("none.bin", "is missing"),
    ],
)
def test_external_data_stays_in_the_folder(tmp_path: Path, location: str, told: str) -> None:
    folder = tmp_path / "model"
    proto = external(tmp_path, location)
    path = save(proto, folder / "m.onnx")
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match=told) as caught:
        read_model(path)
    assert "initializer 'w'" in caught.value.where
    assert caught.value.exit_code == 3


def test_external_data_that_is_too_short(tmp_path: Path) -> None:
    path = save(external(tmp_path), tmp_path / "m.onnx")
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ModelError, match=r"ends at byte 224, but 'weights.bin' has 100 bytes"):
        read_model(path)
