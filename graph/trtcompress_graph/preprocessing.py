"""How an encoded image becomes an input of a model: the one implementation, of calibration, evaluation and serving.

A served model gets a copy of this very file: it needs numpy and Pillow alone, and runs on Python 3.8 and newer.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
"""What is decoded; Pillow knows more formats, of which some start other programs."""

CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1}


class ImageError(ValueError):
    """An image that cannot be decoded, or is smaller than what is cut out of it."""


def to_input(source: Any, *, size: Any, crop: Any, mean: Any, std: Any, scale: float, layout: str, color: str) -> Any:
    """Decode an image, resize it, cut out its middle, then `(pixel * scale - mean) / std`.

    Args:
        source: path of the file, or an open binary file.
        size: (height, width) to resize to, or None.
        crop: (height, width) to cut out, or None.
        mean: one number, or one a channel.
        std: likewise, never 0.
        scale: what a pixel of 0 to 255 is multiplied with.
        layout: `NCHW` or `NHWC`.
        color: `RGB`, `BGR` or `GRAY`.

    Returns:
        Array of shape [channels, height, width] or [height, width, channels]; float32, or uint8 where the values of
        the pixels stay as they are.

    Raises:
        ImageError: it cannot be decoded, or is smaller than the crop.
    """
    pixels = _pixels(source, size, crop, color)
    if not (scale == 1 and set(mean) == {0} and set(std) == {1}):
        shift, spread = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        pixels = (pixels.astype(np.float32) * np.float32(scale) - shift) / spread
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if layout == "NCHW" else pixels)


def _pixels(source: Any, size: Any, crop: Any, color: str) -> Any:
    """Height x width x channels, bytes."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as file:
                image = file.convert("L" if color == "GRAY" else "RGB")
    except UnidentifiedImageError as error:
        raise ImageError(f"the image cannot be read: it is none of {', '.join(FORMATS)}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"the image cannot be read: {error}") from error
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    if crop is not None:
        height, width = crop
        if height > image.height or width > image.width:
            raise ImageError(
                f"the image is {image.height} x {image.width}, smaller than the crop of {height} x {width}"
            )
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return pixels[:, :, ::-1] if color == "BGR" else pixels
