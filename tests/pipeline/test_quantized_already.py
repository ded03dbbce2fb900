"""Models that came quantized: compiled, checked and simplified as they are, and never quantized twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from command_line import done, trtcompress
from float_graphs import Net, images, residual_net
from onnx_models import run

KINDS = {
    "qdq": "DequantizeLinear",
    "qoperator": "QLinearConv",
    "dynamic": "DynamicQuantizeLinear",
    "blocks": "MatMulNBits",
    "blocks_qdq": "DequantizeLinear",
}
"""What ONNX Runtime's quantizers make, and an operator that tells it."""


class Images(CalibrationDataReader):
    def __init__(self) -> None:
        self.left: Iterator[dict[str, NDArray[np.generic]]] = iter([dict(image.inputs) for image in images(4)])

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        return next(self.left, None)


def product(path: Path) -> onnx.ModelProto:
    net = Net()
    net.product("MatMul", "x", "y", 64, 32)
    net.save(path, {"x": ("batch", 64)}, {"y": ("batch", 32)})
    return onnx.load(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("quantized")
    residual_net(made / "float.onnx")
    for name, how in (("qdq", QuantFormat.QDQ), ("qoperator", QuantFormat.QOperator)):
        quantize_static(made / "float.onnx", made / f"{name}.onnx", Images(), quant_format=how)
    quantize_dynamic(made / "float.onnx", made / "dynamic.onnx")
    for name, how in (("blocks", QuantFormat.QOperator), ("blocks_qdq", QuantFormat.QDQ)):
        quantizer = MatMulNBitsQuantizer(
            product(made / "product.onnx"), block_size=32, is_symmetric=True, quant_format=how
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(made / f"{name}.onnx"))
    np.savez(made / "x.npz", x=np.concatenate([image.inputs["x"] for image in images(16)]))
    done("calibrate", "float.onnx", "--data", "x.npz", "-o", "float.json", cwd=made)
    np.savez(made / "rows.npz", x=np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32))
    return made


def data(kind: str) -> str:
    return "rows.npz" if kind.startswith("blocks") else "x.npz"


COMMANDS = {
    "calibrate": ("--data", "{data}", "-o", "r.json"),
    "equalize": ("--data", "{data}", "-o", "made.onnx"),
    "sensitivity": ("--data", "{data}"),
    "sparsify": ("--data", "{data}", "-o", "made.onnx"),
    "prune": ("--macs", "0.5", "-o", "made.onnx"),
    "quantize": ("--ranges", "float.json", "-o", "made.onnx"),
    "build": ("--data", "{data}", "--out", "out", "--store", "store"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_refused_with_a_clear_word(kind: str, folder: Path) -> None:
    made = onnx.load(folder / f"{kind}.onnx")
    assert KINDS[kind] in {node.op_type for node in made.graph.node}
    for command, more in COMMANDS.items():
        if command == "quantize" and kind != "qdq":
            continue  # it wants the ranges of this very model, which cannot be measured
        args = [part.format(data=data(kind)) for part in more]
        ran = trtcompress(command, f"{kind}.onnx", *args, cwd=folder)
        assert (ran.code, ran.out) == (3, ""), f"{command}: {ran.err}"
        assert "quantized already" in ran.err
        assert "hint: " in ran.err
        assert not (folder / "made.onnx").exists()
        assert not (folder / "r.json").exists()
        assert "precision" not in ran.err, "a build says so before it measures anything"


@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_through_what_does_not_quantize(kind: str, folder: Path, tmp_path: Path) -> None:
    path = folder / f"{kind}.onnx"
    with np.load(folder / data(kind)) as arrays:
        feeds = {"x": arrays["x"][:4]}
    done("simplify", path, "-o", tmp_path / "plain.onnx")
    kept = {node.op_type for node in onnx.load(tmp_path / "plain.onnx").graph.node}
    assert KINDS[kind] in kept
    np.testing.assert_allclose(run(tmp_path / "plain.onnx", feeds)[0], run(path, feeds)[0], rtol=1e-5, atol=1e-5)
    done("compile", path, "-o", tmp_path / "engine")
    reference = folder / ("product.onnx" if kind.startswith("blocks") else "float.onnx")
    ran = trtcompress(
        *("validate", tmp_path / "engine", "--reference", reference, "--data", folder / data(kind)),
        *("--min-cosine", "0.9", "--seconds", "0.01", "--json"),
    )
    (output,) = ran.json["outputs"]
    assert 0.9 < output["cosine"] < 0.999999
    assert "quantized" in done("inspect", path).out


def test_a_quantized_operator_inside_a_function_of_the_model_is_seen(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["q"], name="inner"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["b"]),
    ]
    opset = [helper.make_opsetid("", 20)]
    function = helper.make_function("local", "Rounded", ["a", "scale", "zero"], ["b"], nodes, opset)
    calls = [
        helper.make_node("Rounded", ["x", "scale", "zero"], ["r"], domain="local"),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    weights = {"scale": np.float32(0.1), "zero": np.int8(0), "w": np.eye(4, dtype=np.float32)}
    graph = helper.make_graph(
        calls,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opsets = [*opset, helper.make_opsetid("local", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((4, 4), np.float32))
    for command in ("calibrate", "equalize"):
        ran = trtcompress(command, "m.onnx", "--data", "d.npz", "-o", "out", cwd=tmp_path)
        assert ran.code == 3, ran.err
        assert "quantized already: 2 nodes, first inner" in ran.err
