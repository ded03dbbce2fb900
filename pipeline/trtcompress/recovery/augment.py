"""Samples changed at random, where the teacher answers to the changed ones too (arXiv 2106.05237)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trtcompress_graph.model import TensorSpec

InputKind = Literal["image", "audio", "text", "other"]

SHIFT = 8
"""An image moves by up to this part of its size."""

LONG = 1000
"""An input with an axis as long as this is a signal."""

SPAN = 0.5
"""Share of a text that is taken from another one, at the most."""

Inputs = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Changes:
    """What is done to a batch.

    Attributes:
        flip: images are mirrored, each with a chance of a half.
        shift: every other batch of images is moved a little, with its edges reflected.
        mix: every other batch is mixed with itself in another order; the teacher alone tells, since no label fits,
            and the less it leads the fewer batches are mixed.
    """

    flip: bool = False
    shift: bool = False
    mix: bool = False

    def __bool__(self) -> bool:
        return self.flip or self.shift or self.mix


def kind_of_input(spec: TensorSpec, shape: Sequence[int]) -> InputKind:
    """What an input holds, by its type and shape."""
    if spec.dtype.startswith("int"):
        return "text" if len(shape) == 2 and shape[1] > 1 else "other"
    if not spec.dtype.startswith("float"):
        return "other"
    if len(shape) == 4 and _channels(shape) is not None and min(_sizes(shape)) >= 8:
        return "image"
    return "audio" if len(shape) in (2, 3) and shape[-1] >= LONG else "other"


def _channels(shape: Sequence[int]) -> int | None:
    """The axis of the channels of an image."""
    return next((axis for axis in (1, 3) if shape[axis] in (1, 3, 4)), None)


def _sizes(shape: Sequence[int]) -> tuple[int, int]:
    return (shape[2], shape[3]) if _channels(shape) == 1 else (shape[1], shape[2])


def changed(
    inputs: Inputs, kinds: Mapping[str, InputKind], changes: Changes, chance: np.random.Generator, led: float = 1.0
) -> tuple[Inputs, bool]:
    """A batch with the changes, and whether images, signals and texts of a sample were mixed with those of another."""
    found = dict(inputs)
    count = len(next(iter(inputs.values())))
    for name, kind in kinds.items():
        if kind == "image" and changes.flip:
            found[name] = flipped(found[name], chance.random(count) < 0.5)
        if kind == "image" and changes.shift and chance.random() < 0.5:
            found[name] = shifted(found[name], chance)
    mixes = changes.mix and count > 1 and chance.random() < 0.5 * led
    if mixes:
        order, share, place = torch.from_numpy(chance.permutation(count)), float(chance.uniform()), chance.random()
        for name, kind in kinds.items():
            found[name] = _mixed(found[name], order.to(found[name].device), share, kind, place)
    return found, mixes


def flipped(images: Tensor, which: Sequence[bool] | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Tensor:
    """Some images of a batch mirrored, left to right."""
    axis = 3 if _channels(images.shape) == 1 else 2
    mask = torch.as_tensor(np.asarray(which), device=images.device).view(-1, 1, 1, 1)
    return torch.where(mask, images.flip(axis), images)


def shifted(images: Tensor, chance: np.random.Generator) -> Tensor:
    """A batch of images moved by one random offset."""
    return moved(images, *(int(chance.integers(-reach, reach + 1)) for reach in reaches(images)))


def reaches(images: Tensor) -> tuple[int, int]:
    """Pixels that images move by at the most, down and right, or up and left."""
    height, width = _sizes(images.shape)
    return height // SHIFT, width // SHIFT


def moved(images: Tensor, down: int, right: int) -> Tensor:
    """A batch of images moved by some pixels, with its edges reflected."""
    first = _channels(images.shape) == 1
    planes = images if first else images.movedim(3, 1)
    height, width = planes.shape[2:]
    y, x = reaches(images)
    padded = functional.pad(planes, (x, x, y, y), mode="reflect")
    cut = padded[:, :, y + down : y + down + height, x + right : x + right + width]
    return (cut if first else cut.movedim(1, 3)).contiguous()


def _mixed(value: Tensor, order: Tensor, share: float, kind: InputKind, place: float) -> Tensor:
    """Signals are added (mixup, arXiv 1710.09412); of a text a span is taken from the other one, ids and mask alike."""
    if kind in ("image", "audio"):
        return share * value + (1 - share) * value[order]
    if kind == "text":
        length = value.shape[1]
        span = int(length * SPAN * share)
        start = int((length - span + 1) * place)
        found = value.clone()
        found[:, start : start + span] = value[order][:, start : start + span]
        return found
    return value
