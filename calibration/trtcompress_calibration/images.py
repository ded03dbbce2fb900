"""Image files to arrays."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from trtcompress_graph.errors import DataError
from trtcompress_graph.model import Dim, TensorSpec

from .samples import Array, Preprocess


def default_preprocess(spec: TensorSpec) -> Preprocess:
    """What the shape and type of an input tell: layout, size, grey or colour; pixels 0 to 1, bytes stay bytes.

    Raises:
        DataError: no axis of the input has the length 1 or 3 of channels.
    """
    second, last = spec.shape[-3], spec.shape[-1]
    if second not in (1, 3) and last not in (1, 3):
        raise DataError(
            f"which axis of {list(spec.shape)} holds the channels cannot be told",
            where=f"input '{spec.name}'",
            hint="say how images become this input in a preprocess section: size, mean, std, layout, color",
        )
    first = second in (1, 3)
    height, width = spec.shape[-2:] if first else spec.shape[-3:-1]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return Preprocess(
        size=size,
        layout="NCHW" if first else "NHWC",
        color="GRAY" if (second if first else last) == 1 else "RGB",
        scale=1.0 if np.dtype(spec.dtype).kind in "iu" else 1 / 255,
    )


def load_image(path: Path, preprocess: Preprocess, spec: TensorSpec) -> Array:
    """Decode and preprocess one image; float32, or uint8 where nothing but the size changes.

    Raises:
        DataError: it cannot be decoded, is smaller than the crop, or mean and std do not fit its channels.
    """
    pixels = _pixels(path, preprocess)
    channels = pixels.shape[2]
    wanted: Dim = spec.shape[-3] if preprocess.layout == "NCHW" else spec.shape[-1]
    if isinstance(wanted, int) and wanted != channels:
        raise DataError(
            f"{preprocess.color} in {preprocess.layout} has {channels} channels, the input has {wanted}",
            where=f"input '{spec.name}'",
            hint="set layout and color in the preprocess section to what the model was trained with",
        )
    values = pixels if _unscaled(preprocess) else _normalised(pixels, preprocess, spec)
    return np.ascontiguousarray(values.transpose(2, 0, 1) if preprocess.layout == "NCHW" else values)


def _unscaled(preprocess: Preprocess) -> bool:
    return preprocess.scale == 1 and set(preprocess.mean) == {0} and set(preprocess.std) == {1}


def _pixels(path: Path, preprocess: Preprocess) -> Array:
    """Height x width x channels, bytes."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = file.convert("L" if preprocess.color == "GRAY" else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"the image cannot be read: {error}", where=str(path), hint="remove the file or replace it"
        ) from error
    if preprocess.size is not None:
        height, width = preprocess.size
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if preprocess.crop is not None:
        height, width = preprocess.crop
        if height > image.height or width > image.width:
            raise DataError(
                f"the image is {image.height} x {image.width}, smaller than the crop of {height} x {width}",
                where=str(path),
                hint="set size in the preprocess section to at least the crop",
            )
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return pixels[:, :, ::-1] if preprocess.color == "BGR" else pixels


def _normalised(pixels: Array, preprocess: Preprocess, spec: TensorSpec) -> Array:
    channels = pixels.shape[2]
    for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
        if len(values) not in (1, channels) or (name == "std" and 0 in values):
            raise DataError(
                f"{name} is {list(values)}, which does not fit {channels} channels",
                where=f"input '{spec.name}'",
                hint=f"give one number, or {channels}; std is never 0",
            )
    mean, std = np.asarray(preprocess.mean, np.float32), np.asarray(preprocess.std, np.float32)
    scaled: Array = (pixels.astype(np.float32) * np.float32(preprocess.scale) - mean) / std
    return scaled
