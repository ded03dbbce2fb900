"""A folder of images, flat or one subfolder a class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trtcompress_graph.errors import DataError
from trtcompress_graph.model import TensorSpec

from ..images import default_preprocess, load_image
from .base import Chunk, Chunks, Request, Source

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS and path.is_file())


def _classes(folder: Path) -> list[list[Path]]:
    """Images of each class; a subfolder without any is a class all the same, so that numbers stay put."""
    return [_images(path) for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def holds_images(path: Path) -> bool:
    """Whether this is a folder of images."""
    return path.is_dir() and (bool(_images(path)) or any(_classes(path)))


def _open(request: Request) -> Chunks:
    spec = _image_input(request)
    preprocess = request.preprocess or default_preprocess(spec)
    flat, classes = _images(request.path), _classes(request.path)
    if flat and any(classes):
        raise DataError(
            "images lie both in the folder and in its subfolders",
            where=str(request.path),
            hint="keep one: a flat folder, or one subfolder a class",
        )

    total = sum(map(len, classes)) or len(flat)

    def chunks() -> Iterator[Chunk]:
        for path, label in _in_turn(classes) if any(classes) else ((path, None) for path in flat):
            arrays = {spec.name: load_image(path, preprocess, spec)[None]}
            if label is not None:
                arrays["labels"] = np.array([label])
            yield Chunk(str(path), arrays, total=total)

    return chunks


def _in_turn(classes: list[list[Path]]) -> Iterator[tuple[Path, int]]:
    """The first image of each class, then the second: the first N samples hold every class alike."""
    for place in range(max(map(len, classes))):
        for label, paths in enumerate(classes):
            if place < len(paths):
                yield paths[place], label


def _image_input(request: Request) -> TensorSpec:
    """The one input that takes an image."""
    if len(request.inputs) != 1 or len(request.inputs[0].shape) not in (3, 4):
        listed = ", ".join(f"'{spec.name}' of rank {len(spec.shape)}" for spec in request.inputs)
        raise DataError(
            f"a folder of images feeds one input of rank 4; the model has {listed}",
            where=str(request.path),
            hint="write a function that yields dicts of arrays, and name it as package.module:function",
        )
    return request.inputs[0]


SOURCE = Source(
    "a folder of images (jpg, png, bmp, webp), flat or one subfolder a class",
    lambda request: holds_images(request.path),
    _open,
)
