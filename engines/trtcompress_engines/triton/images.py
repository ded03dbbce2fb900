"""Encoded images for requests: JPEG and PNG, of any size and kind that a served preprocessing takes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..backend import Array

LEAST, MOST = 8, 320
"""Edges of made-up images, in pixels."""

MODES = ("RGB", "L", "RGBA", "P")


@dataclass(frozen=True, slots=True)
class Images:
    """What images an input takes.

    Attributes:
        height: least and greatest edge, in pixels.
        width: likewise.
        alike: whether the images of one request have to be of one size, since nothing brings them to one.
    """

    height: tuple[int, int]
    width: tuple[int, int]
    alike: bool


def images_of(step: Any, ranges: Mapping[int, tuple[int, int]]) -> Images:
    """What a served preprocessing takes.

    Args:
        step: its description.
        ranges: least and greatest length of the axes of its output, by index, where they are dynamic.
    """
    settings, shape = step["settings"], step["output"]["shape"]
    if settings["size"] is not None:
        return Images((LEAST, MOST), (LEAST, MOST), alike=False)
    if settings["crop"] is not None:
        height, width = ((edge, edge + MOST) for edge in settings["crop"])
        return Images(height, width, alike=False)
    first = len(shape) - (2 if settings["layout"] == "NCHW" else 3)
    edges = [
        ranges.get(index, (LEAST, MOST)) if shape[index] == -1 else (shape[index],) * 2 for index in (first, first + 1)
    ]
    return Images(edges[0], edges[1], alike=True)


def make_images(images: Images, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """An array of encoded images."""
    made = np.empty(shape, dtype=object)
    edges = _edges(images, rng)
    for place in np.ndindex(shape):
        edges = edges if images.alike else _edges(images, rng)
        made[place] = encoded(rng, *edges)
    return made


def _edges(images: Images, rng: np.random.Generator) -> tuple[int, int]:
    height, width = (int(rng.integers(least, most + 1)) for least, most in (images.height, images.width))
    return height, width


def encoded(rng: np.random.Generator, height: int, width: int) -> bytes:
    """Coarse noise, grey, in colours, with transparency or a palette; as JPEG where that can hold it, or PNG."""
    from PIL import Image

    coarse = rng.integers(0, 256, (max(1, height // 8), max(1, width // 8), 4)).astype(np.uint8)
    mode = MODES[int(rng.integers(len(MODES)))]
    image = Image.fromarray(coarse, "RGBA").resize((width, height), Image.Resampling.BILINEAR)
    image = image.convert("RGB").convert(mode) if mode != "RGBA" else image
    file = io.BytesIO()
    image.save(file, "JPEG" if mode in ("RGB", "L") and rng.random() < 0.5 else "PNG")
    return file.getvalue()
