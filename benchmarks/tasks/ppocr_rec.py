"""PP-OCRv4's reader of text lines (ONNX, no source), on lines rendered with the DejaVu fonts.

No line that calibrates is tested. Lines are filled up to a multiple of 64 pixels; equal widths share a batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import Arrays, Floats, Run, Task, asset, share

FONTS = Path("/usr/share/fonts/truetype/dejavu")
WORDS = Path(__file__).parents[2] / "examples/ocr/words.txt"
HEIGHT, STEP, BATCH = 48, 64, 8
CALIBRATION, TEST = 400, 400


def reader() -> Path:
    return asset("rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx")


def calibration(fold: int) -> Iterator[Arrays]:
    groups = _by_width(_texts()[TEST:], seed=1)
    for members in sorted(groups.values(), key=len, reverse=True):
        for images, _ in _batches(members):
            yield {"x": images}


def test(fold: int, run: Run) -> tuple[Floats, Floats]:
    exact = []
    for members in _by_width(_texts()[:TEST], seed=2).values():
        for images, texts in _batches(members):
            exact += [decode(line) == text for line, text in zip(run({"x": images}), texts, strict=True)]
    return np.array(exact, np.float64), np.ones(len(exact))


def decode(probabilities: NDArray[Any]) -> str:
    """Best path of CTC: [steps, characters] -> text. Character 0 is the blank, the last one a space."""
    best = probabilities.argmax(-1)
    kept = [index for step, index in enumerate(best) if index and (step == 0 or index != best[step - 1])]
    return "".join(_alphabet()[index] for index in kept).strip()


@cache
def _alphabet() -> list[str]:
    """The characters that the reader knows; they are kept in its metadata."""
    import onnx

    metadata = onnx.load(reader(), load_external_data=False).metadata_props
    return ["", *next(entry.value for entry in metadata if entry.key == "character").splitlines(), " "]


@cache
def _texts() -> list[str]:
    """Lines of one to four words and now and then a number, all different: tested ones first."""
    words, rng = WORDS.read_text(encoding="utf-8").split(), np.random.default_rng(0)
    texts: dict[str, None] = {}
    while len(texts) < TEST + CALIBRATION:
        line = [str(rng.choice(words)) for _ in range(rng.integers(1, 5))]
        line = [word.capitalize() if rng.random() < 0.3 else word for word in line]
        if rng.random() < 0.3:
            line.append(str(rng.integers(10, 10_000)))
        texts[" ".join(line)] = None
    return list(texts)


def _by_width(texts: list[str], seed: int) -> dict[int, list[tuple[NDArray[Any], str]]]:
    rng, groups = np.random.default_rng(seed), defaultdict(list)
    for text in texts:
        image = _render(text, rng)
        groups[image.shape[-1]].append((image, text))
    return groups


def _batches(members: list[tuple[NDArray[Any], str]]) -> Iterator[tuple[NDArray[Any], list[str]]]:
    for start in range(0, len(members), BATCH):
        some = members[start : start + BATCH]
        yield np.stack([image for image, _ in some]), [text for _, text in some]


def _render(text: str, rng: np.random.Generator) -> NDArray[Any]:
    """A line, dark on light with a little noise: [3, 48, width], values -1 to 1, filled up with 0 on the right."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(str(_fonts()[int(rng.integers(len(_fonts())))]), int(rng.integers(22, 34)))
    left, top, right, bottom = font.getbbox(text)
    width = int(right - left) + 16
    image = Image.new("L", (width, HEIGHT), int(rng.integers(200, 256)))
    place = (8 - left, (HEIGHT - (bottom - top)) / 2 - top)
    ImageDraw.Draw(image).text(place, text, fill=int(rng.integers(0, 80)), font=font)
    pixels = np.asarray(image, np.float32) + rng.normal(0, 8, (HEIGHT, width))
    filled = np.zeros((HEIGHT, -(-width // STEP) * STEP), np.float32)
    filled[:, :width] = np.clip(pixels, 0, 255) / 127.5 - 1
    return np.repeat(filled[None], 3, axis=0)


@cache
def _fonts() -> list[Path]:
    found = [path for path in sorted(FONTS.glob("DejaVu*.ttf")) if "Math" not in path.name and "Extra" not in path.name]
    if not found:
        raise SystemExit(f"{FONTS} holds no DejaVu fonts: apt-get install fonts-dejavu")
    return found


TASK = Task(
    source=reader,
    kept=(0.8,),
    folds=1,
    metric="exact lines",
    statistic=share,
    full=(0.965, 0.995),
    calibration=calibration,
    test=test,
    data=f"lines rendered with the DejaVu fonts: {CALIBRATION} calibrate, {TEST} others test",
)
