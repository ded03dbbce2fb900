"""The models of fleet.py: digits, ImageNet, the three networks of PP-OCRv4, sentences; with samples that calibrate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kept_runs import full_model
from tasks import Arrays, asset, find_task

Axes = dict[str, dict[str, list[int]]]
SAMPLES = 128


@dataclass(frozen=True)
class FleetModel:
    """What is built.

    Attributes:
        source_words: what it is, for the report.
        onnx: finds or makes its ONNX file.
        axes: least, usual and greatest length of each dynamic axis.
        samples: batches that calibrate.
    """

    source_words: str
    onnx: Callable[[], Path]
    axes: Axes
    samples: Callable[[], Iterator[Arrays]]


def of_task(name: str, words: str, axes: Axes) -> FleetModel:
    """A model that the other benchmarks take too."""
    task = find_task(name)
    return FleetModel(
        words, lambda: full_model(name, task, anew=False), axes, lambda: at_most(task.calibration(0), SAMPLES)
    )


def at_most(batches: Iterator[Arrays], samples: int) -> Iterator[Arrays]:
    for batch in batches:
        count = min(samples, len(next(iter(batch.values()))))
        if count:
            yield {name: array[:count] for name, array in batch.items()}
        samples -= count


def reader_lines() -> Iterator[NDArray[Any]]:
    """Lines of text, [3, 48, width]."""
    for batch in find_task("ppocr_rec").calibration(0):
        yield from batch["x"]


def pages() -> Iterator[Arrays]:
    """Pages of four lines of text each on a light ground, [1, 3, 320, 320]."""
    lines = reader_lines()
    for _ in range(SAMPLES // 4):
        page = np.full((3, 320, 320), 0.7, np.float32)
        for row in range(4):
            line = next(lines)[:, :, :288]
            page[:, 20 + 70 * row : 68 + 70 * row, 16 : 16 + line.shape[-1]] = line
        yield {"x": page[None]}


def turned_lines() -> Iterator[Arrays]:
    """Lines cut to 192 pixels, every other one upside down: what the classifier of directions reads."""
    lines = reader_lines()
    for number in range(SAMPLES):
        line = np.zeros((3, 48, 192), np.float32)
        text = next(lines)[:, :, :192]
        line[:, :, : text.shape[-1]] = text
        yield {"x": np.ascontiguousarray(line[:, ::-1, ::-1] if number % 2 else line)[None]}


_DIM = "p2o.DynamicDimension"
_BATCH = [1, 8, 16]
_WORDS = {"batch": [1, 8, 32], "sequence": [2, 16, 128]}


def ocr(tail: str) -> Callable[[], Path]:
    return lambda: asset("rapidocr-onnxruntime", tail)


MODELS = {
    "mnist": of_task("mnist", "1: digits", {"x": {"batch": _BATCH}}),
    "mobilenet_v2": of_task("mobilenet_v2", "2: MobileNetV2 with its ImageNet weights", {"x": {"batch": _BATCH}}),
    "ppocr_det": FleetModel(
        "3: PP-OCRv4, detector",
        ocr("ch_PP-OCRv4_det_infer.onnx"),
        {"x": {f"{_DIM}.0": [1, 1, 4], f"{_DIM}.1": [32, 320, 640], f"{_DIM}.2": [32, 320, 640]}},
        pages,
    ),
    "ppocr_rec": FleetModel(
        "3: PP-OCRv4, reader",
        ocr("ch_PP-OCRv4_rec_infer.onnx"),
        {"x": {f"{_DIM}.0": _BATCH, "2": [48, 48, 48], f"{_DIM}.1": [64, 192, 640]}},
        lambda: at_most(find_task("ppocr_rec").calibration(0), SAMPLES),
    ),
    "ppocr_cls": FleetModel(
        "3: PP-OCR, classifier of directions",
        ocr("ch_ppocr_mobile_v2.0_cls_infer.onnx"),
        {"x": {"0": _BATCH, "2": [48, 48, 48], "3": [192, 192, 192]}},
        turned_lines,
    ),
    "minilm": of_task("minilm", "4: MiniLM", {"input_ids": _WORDS, "attention_mask": _WORDS}),
}
