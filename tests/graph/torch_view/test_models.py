"""Real graphs in a view against ONNX Runtime: shipped ones as they come, trained ones, and some of the zoo."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

import zoo
from assets import asset
from onnx_models import LIGHT
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.torch_view import to_torch
from zoo.shipped import light

NEAR = 1e-4
"""Of the greatest value of an output."""

OCR = {
    "ocr_detector": "ch_PP-OCRv4_det_infer.onnx",
    "ocr_reader": "ch_PP-OCRv4_rec_infer.onnx",
    "ocr_turner": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
}
VOICE = ("silero_vad_16k_op15.onnx", "silero_vad_op18_ifless.onnx")
TRAINED = ("digits", "recommender", "mobilenet_v2_trained", "minilm", "clip")
"""Of the zoo: REAL_INPUTS that come out of PyTorch."""

FEW = tuple(random.Random(6).sample([name for name in zoo.NAMES if zoo.kind(name) == "written"], 6))


def differs(model: Model, feeds: Mapping[str, Any]) -> float:
    """Greatest difference of an output from ONNX Runtime's, over its greatest value."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    expected = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"]).run(None, dict(feeds))
    with torch.no_grad():
        made = to_torch(model)(*[torch.from_numpy(np.array(feed)) for feed in feeds.values()])
    results = [each.numpy() for each in (made if isinstance(made, tuple) else (made,))]
    assert [(r.shape, r.dtype) for r in results] == [(e.shape, e.dtype) for e in expected]
    pairs = zip(expected, results, strict=True)
    return max(float(np.abs(e.astype(float) - r).max() / max(np.abs(e).max(), 1e-20)) for e, r in pairs if e.size)


@pytest.mark.parametrize("name", LIGHT)
def test_image_classifiers_of_opset_9(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(light(name).SerializeToString())
    model = read_model(path)
    spec = model.inputs[0]
    x = np.random.default_rng(0).standard_normal([n if isinstance(n, int) else 1 for n in spec.shape])
    assert differs(model, {spec.name: x.astype(np.float32)}) < NEAR


@pytest.mark.parametrize("name", OCR)
def test_text_reader(name: str) -> None:
    model = read_model(asset("rapidocr-onnxruntime", OCR[name]))
    assert differs(model, zoo.feeds(name, zoo.shapes(name)[0])) < NEAR


def speech() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1, 576)).astype(np.float32)
    return {"input": x, "state": rng.standard_normal((2, 1, 128)).astype(np.float32), "sr": np.array(16000)}


@pytest.mark.parametrize("name", VOICE)
def test_voice_detector(name: str) -> None:
    model, feeds = read_model(asset("silero-vad", name)), speech()
    assert differs(model, {spec.name: feeds[spec.name] for spec in model.inputs}) < NEAR


@pytest.mark.parametrize("name", VOICE)
def test_export_of_the_voice_detector(name: str) -> None:
    """Its branches return views of what comes in, or have other ranks and are chosen by a length."""
    model, feeds = read_model(asset("silero-vad", name)), speech()
    view, given = to_torch(model), tuple(torch.from_numpy(feeds[spec.name]) for spec in model.inputs)
    exported = torch.export.export(view, given).module()
    with torch.no_grad():
        assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(exported(*given), view(*given), strict=True))


@pytest.mark.parametrize("name", [*TRAINED, *FEW])
def test_graphs_of_the_zoo(name: str) -> None:
    model = zoo.model(name)
    for shapes in zoo.shapes(name):
        feeds = zoo.feeds(name, shapes)
        assert differs(model, {spec.name: feeds[spec.name] for spec in model.inputs}) < NEAR
