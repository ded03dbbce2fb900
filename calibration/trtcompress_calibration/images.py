"""Image files to arrays."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from trtcompress_graph.errors import DataError
from trtcompress_graph.model import Dim, TensorSpec
from trtcompress_graph.preprocessing import CHANNELS, ImageError, to_input

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


def assumption(spec: TensorSpec) -> str:
    """In words, what `default_preprocess` takes for granted."""
    taken = default_preprocess(spec)
    size = f"resized to {taken.size[0]}x{taken.size[1]}" if taken.size else "left in their size"
    values = "their pixels stay 0 to 255" if taken.scale == 1.0 else "their pixels go from 0 to 1"
    return (
        f"images are {size} and {values}, with no mean and deviation: if the model was trained otherwise, give a "
        "config with a section preprocess, or arrays (.npz) as the model takes them"
    )


def load_image(path: Path, preprocess: Preprocess, spec: TensorSpec) -> Array:
    """Decode and preprocess one image; float32, or uint8 where nothing but the size changes.

    Raises:
        DataError: it cannot be decoded, is smaller than the crop, or mean and std do not fit its channels.
    """
    check_preprocess(preprocess, spec)
    try:
        values: Array = to_input(path, **asdict(preprocess))
    except ImageError as error:
        small = "smaller than the crop" in str(error)
        hint = "set size in the preprocess section to at least the crop" if small else "remove the file or replace it"
        raise DataError(str(error), where=str(path), hint=hint) from error
    return values


def check_preprocess(preprocess: Preprocess, spec: TensorSpec) -> None:
    """Do channels, mean and std fit the input?

    Raises:
        DataError: they do not.
    """
    channels = CHANNELS[preprocess.color]
    wanted: Dim = spec.shape[-3] if preprocess.layout == "NCHW" else spec.shape[-1]
    if isinstance(wanted, int) and wanted != channels:
        raise DataError(
            f"{preprocess.color} in {preprocess.layout} has {channels} channels, the input has {wanted}",
            where=f"input '{spec.name}'",
            hint="set layout and color in the preprocess section to what the model was trained with",
        )
    for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
        if len(values) not in (1, channels) or (name == "std" and 0 in values):
            raise DataError(
                f"{name} is {list(values)}, which does not fit {channels} channels",
                where=f"input '{spec.name}'",
                hint=f"give one number, or {channels}; std is never 0",
            )
