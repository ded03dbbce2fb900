"""Lines of text as images, and how exactly a reader reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFont

HEIGHT = 48
STEP = 64
"""Widths are filled up to a multiple of this, so that lines of similar length can share a batch."""

WORDS = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()


def calibration() -> Iterator[dict[str, np.ndarray]]:
    for image, _ in _lines(seed=1, count=128):
        yield {"x": image}


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    for image, text in _lines(seed=2, count=200):
        yield {"x": image, "labels": np.array([text])}


def exact(outputs: Mapping[str, np.ndarray | list[np.ndarray]], labels: np.ndarray) -> np.ndarray:
    """1 for each line that is read without any error, else 0."""
    probabilities = next(iter(outputs.values()))
    read = [_decode(line) for line in probabilities]
    return np.array([float(text == str(truth)) for text, truth in zip(read, labels, strict=True)])


def _decode(probabilities: np.ndarray) -> str:
    """Best path of CTC: [steps, characters] -> text. Character 0 is the blank, the last one a space."""
    best = probabilities.argmax(-1)
    kept = [index for step, index in enumerate(best) if index and (step == 0 or index != best[step - 1])]
    return "".join(_alphabet()[index] for index in kept).strip()


@cache
def _alphabet() -> list[str]:
    """The characters that the reader knows; they are kept in its metadata."""
    metadata = onnx.load(Path(__file__).with_name("reader.onnx"), load_external_data=False).metadata_props
    return ["", *next(entry.value for entry in metadata if entry.key == "character").splitlines(), " "]


def _lines(seed: int, count: int) -> Iterator[tuple[np.ndarray, str]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        words = [str(rng.choice(WORDS)) for _ in range(rng.integers(1, 5))]
        text = " ".join(word.capitalize() if rng.random() < 0.3 else word for word in words)
        yield _render(text, rng), text


def _render(text: str, rng: np.random.Generator) -> np.ndarray:
    """A line, dark on light with a little noise: [1, 3, 48, width], values -1 to 1, filled up with 0 on the right."""
    font = ImageFont.load_default(size=int(rng.integers(26, 34)))
    left, top, right, bottom = font.getbbox(text)
    width = int(right - left) + 16
    paper, ink = int(rng.integers(200, 256)), int(rng.integers(0, 60))
    image = Image.new("L", (width, HEIGHT), paper)
    ImageDraw.Draw(image).text((8 - left, (HEIGHT - (bottom - top)) / 2 - top), text, fill=ink, font=font)
    pixels = np.asarray(image, np.float32) + rng.normal(0, 4, (HEIGHT, width))
    filled = np.zeros((HEIGHT, -(-width // STEP) * STEP), np.float32)
    filled[:, :width] = np.clip(pixels, 0, 255) / 127.5 - 1
    return np.repeat(filled[None, None], 3, axis=1)
