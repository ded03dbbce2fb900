"""The real models that a user may bring (text, images, speech, recommendations), with a few samples for each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import networks
from assets import asset
from float_graphs import lines
from trtcompress.exporting.network import make_network
from trtcompress.exporting.torch_export import export_network
from trtcompress_calibration.samples import Sample
from trtcompress_graph.axes import Axes, AxisRange
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.simplify import simplify

BATCH = AxisRange(1, 2, 4)
WORDS = {"batch": BATCH, "sequence": AxisRange(2, 12, 24)}


@dataclass(frozen=True, slots=True)
class RealInput:
    """A model in float, simplified, with some samples and the lengths of its dynamic axes."""

    model: Model
    samples: list[Sample]
    axes: Axes


Make = Callable[[Path], RealInput]
REAL: dict[str, Make] = {}


def real(make: Make) -> Make:
    REAL[make.__name__] = functools.cache(make)
    return make


def exported(name: str, module: nn.Module, example: Any, axes: Axes, folder: Path) -> Model:
    torch.manual_seed(0)
    network = make_network(name, module.eval(), example, axes)
    path = export_network(network, (), folder / f"{name}.exported.onnx", lambda _: None).path
    return simplify(read_model(path), folder / f"{name}.onnx")


def noise(shape: tuple[int, ...], count: int = 4) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, *shape)).astype(np.float32) for _ in range(count)]


def sentences(count: int = 4) -> list[dict[str, NDArray[np.int64]]]:
    """Token numbers of different lengths; where a sentence is filled up, its mask is 0."""
    rng = np.random.default_rng(0)
    made = []
    for length in rng.integers(5, 24, count):
        mask = np.ones((1, length), np.int64)
        mask[:, length - length // 4 :] = 0
        made.append({"input_ids": rng.integers(1000, 20000, (1, length)), "attention_mask": mask})
    return made


@real
def mnist(folder: Path) -> RealInput:
    axes = {"x": {"batch": BATCH}}
    model = exported("mnist", *networks.mnist(), axes, folder)
    return RealInput(model, [Sample({"x": x}) for x in noise((1, 28, 28))], axes)


@real
def mobilenet_v2(folder: Path) -> RealInput:
    axes = {"x": {"batch": BATCH}}
    network, image = networks.mobilenet()
    model = exported("mobilenet_v2", network, image[..., :96, :96], axes, folder)
    return RealInput(model, [Sample({"x": x}) for x in noise((3, 96, 96))], axes)


def reader(tail: str, height: int, axes: Axes, folder: Path) -> RealInput:
    path = asset("rapidocr-onnxruntime", tail)
    model = simplify(read_model(path), folder / tail)
    return RealInput(model, lines(4, (3, height, 96)), axes)


_DIM = "p2o.DynamicDimension"


@real
def text_detector(folder: Path) -> RealInput:
    side = {f"{_DIM}.1": AxisRange(32, 64, 96), f"{_DIM}.2": AxisRange(32, 96, 128)}
    axes = {"x": {f"{_DIM}.0": AxisRange(1, 1, 2), **side}}
    return reader("ch_PP-OCRv4_det_infer.onnx", 64, axes, folder)


@real
def text_reader(folder: Path) -> RealInput:
    axes = {"x": {f"{_DIM}.0": BATCH, "2": AxisRange(48, 48, 48), f"{_DIM}.1": AxisRange(32, 96, 160)}}
    return reader("ch_PP-OCRv4_rec_infer.onnx", 48, axes, folder)


@real
def text_turner(folder: Path) -> RealInput:
    axes = {"x": {"0": BATCH, "2": AxisRange(48, 48, 48), "3": AxisRange(96, 96, 96)}}
    return reader("ch_ppocr_mobile_v2.0_cls_infer.onnx", 48, axes, folder)


@real
def sentence_encoder(folder: Path) -> RealInput:
    axes = {"input_ids": WORDS, "attention_mask": WORDS}
    model = exported("sentence_encoder", *networks.minilm(), axes, folder)
    return RealInput(model, [Sample(sentence) for sentence in sentences()], axes)


class TwoTowers(nn.Module):
    """An image tower and a sentence tower onto one space, each with a batch of its own; the head is random.

    Of the six layers for sentences the first three are enough here: all six are tested by themselves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = networks.mobilenet()[0].features, networks.minilm()[0]
        self.text.encoder.layer = self.text.encoder.layer[:3]
        self.head = nn.Linear(1280, 384)

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.text(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        shown = attention_mask[..., None].to(hidden.dtype)
        sentence = (hidden * shown).sum(1) / shown.sum(1).clamp(min=1e-9)
        image = self.head(self.image(pixels).mean((2, 3)))
        normal = nn.functional.normalize
        return normal(image, dim=-1) @ normal(sentence, dim=-1).T


@real
def image_and_text(folder: Path) -> RealInput:
    words = {"texts@0": BATCH, "sequence@1": AxisRange(2, 12, 24)}
    axes = {"pixels": {"images@0": BATCH}, "input_ids": words, "attention_mask": words}
    example = {name: torch.from_numpy(array) for name, array in sentences(1)[0].items()}
    model = exported("image_and_text", TwoTowers(), {"pixels": torch.randn(1, 3, 64, 64), **example}, axes, folder)
    pairs = zip(noise((3, 64, 64)), sentences(), strict=True)
    return RealInput(model, [Sample({"pixels": x, **sentence}) for x, sentence in pairs], axes)


def voice(tail: str, folder: Path) -> RealInput:
    """One step of the detector at 16 kHz."""
    model = simplify(read_model(asset("silero-vad", tail)), folder / tail, fix={"sr": 16000})
    axes = {"input": {"batch": BATCH, "sequence": AxisRange(576, 576, 576)}, "state": {"batch": BATCH}}
    rng = np.random.default_rng(0)
    state = [rng.uniform(-0.9, 0.9, (2, 1, 128)).astype(np.float32) for _ in range(4)]
    steps = zip(noise((576,)), state, strict=True)
    return RealInput(model, [Sample({"input": x / 8, "state": s}) for x, s in steps], axes)


@real
def voice_detector(folder: Path) -> RealInput:
    return voice("silero_vad_16k_op15.onnx", folder)


@real
def voice_detector_ifless(folder: Path) -> RealInput:
    return voice("silero_vad_op18_ifless.onnx", folder)


class SpokenDigits(nn.Module):
    """Depthwise convolutions on a log-mel spectrogram of 40 bands, averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [networks.block(1, 16, 3, 2)]
        for inputs, outputs in ((16, 32), (32, 48), (48, 64)):
            layers += [networks.block(inputs, inputs, 3, 2, inputs), networks.block(inputs, outputs, 1)]
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(64, 10)

    def forward(self, mel: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(mel).mean((2, 3)))
        return out


@real
def spoken_digits(folder: Path) -> RealInput:
    axes = {"mel": {"batch": BATCH, "time@3": AxisRange(32, 64, 96)}}
    torch.manual_seed(0)
    model = exported("spoken_digits", SpokenDigits(), torch.randn(1, 1, 40, 64), axes, folder)
    return RealInput(model, [Sample({"mel": x}) for x in noise((1, 40, 64))], axes)


class NeuMF(nn.Module):
    """Neural matrix factorization (arXiv 1708.05031): a product of embeddings beside a perceptron."""

    def __init__(self, users: int = 900, films: int = 1600, width: int = 32) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(count, width) for count in (users, films, users, films))
        self.mlp = nn.Sequential(nn.Linear(2 * width, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.score = nn.Linear(width + 32, 1)

    def forward(self, user: Tensor, film: Tensor) -> Tensor:
        one, two, three, four = (table(ids) for table, ids in zip(self.tables, (user, film) * 2, strict=True))
        deep = self.mlp(torch.cat([three, four], -1))
        out: Tensor = self.score(torch.cat([one * two, deep], -1))
        return out


@real
def recommender(folder: Path) -> RealInput:
    axes = {"user": {"batch": BATCH}, "film": {"batch": BATCH}}
    ids = torch.tensor([1, 2])
    torch.manual_seed(0)
    model = exported("recommender", NeuMF(), {"user": ids, "film": ids + 3}, axes, folder)
    rng = np.random.default_rng(0)
    samples = [Sample({"user": rng.integers(0, 900, 1), "film": rng.integers(0, 1600, 1)}) for _ in range(16)]
    return RealInput(model, samples, axes)
