"""The frozen values that carry data: one sample, one batch, and how an image becomes a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How an image file becomes an input: resize, crop the middle, then `(pixel * scale - mean) / std`.

    Attributes:
        size: (height, width) to resize to, or None to keep the image's own.
        crop: (height, width) to cut out of the middle, or None.
        mean: one number, or one a channel, in the order of `color`.
        std: one number, or one a channel, in the order of `color`.
        layout: where the channels stand.
        color: order of the channels; `GRAY` has one.
        scale: what a pixel of 0 to 255 is multiplied with.
    """

    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    color: Literal["RGB", "BGR", "GRAY"] = "RGB"
    scale: float = 1 / 255


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One sample: every input with the rank that the model wants, its batch axis of length 1.

    Attributes:
        inputs: arrays by input name.
        label: what the sample should give, or None where the data has no labels.
    """

    inputs: Mapping[str, Array]
    label: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Samples that go through the model together.

    Attributes:
        inputs: arrays by input name.
        labels: one label a real sample, stacked (of equal shape) or as an object array; None without labels.
        count: how many samples are real.
        indices: place of each real sample in the order of the data.
        repeated: how many times the last sample follows again, to fill a model of fixed batch size.
        axes: the axis that counts the samples, of inputs where it is not the first.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    count: int
    indices: tuple[int, ...] = ()
    repeated: int = 0
    axes: Mapping[str, int] = field(default_factory=dict)

    def first(self) -> dict[str, Array]:
        """Inputs of the first sample alone."""
        return {
            name: array[(slice(None),) * self.axes.get(name, 0) + (slice(1),)] for name, array in self.inputs.items()
        }
