"""Samples changed at random, where the teacher answers to the changed ones too (arXiv 2106.05237)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from trtcompress_graph.model import TensorSpec

InputKind = Literal["image", "mask", "audio", "text", "other"]

_PLACED = ("image", "mask")
"""What is mirrored and moved, all of a sample alike."""

_NOT_MIRRORED = ("uint16", "uint32", "uint64")
"""Types that PyTorch does not flip."""

_ADDED = ("image", "audio")
"""Of which a sum is one too."""

SHIFT = 8
"""An image moves by up to this part of its size."""

LONG = 1000
"""An input with an axis as long as this is a signal."""

LEAST = 8
"""So many ids are a text; fewer are keys, such as of a user and a thing, each with a meaning of its own."""

SPAN = 0.5
"""Share of a text that is taken from another one, at the most."""

Inputs = dict[str, Tensor]
Bools = Sequence[bool] | np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Changes:
    """What is done to a batch.

    Attributes:
        flip: images are mirrored, those of each sample with a chance of a half.
        shift: images of every other batch are moved a little, with their edges reflected.
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
    floats = spec.dtype.startswith("float")
    if len(shape) == 4 and _channels(shape) is not None and min(sizes(shape)) >= 8:
        return "image" if floats else "other" if spec.dtype in _NOT_MIRRORED else "mask"
    if spec.dtype.startswith("int"):
        return "text" if len(shape) == 2 and shape[1] >= LEAST else "other"
    if not floats:
        return "other"
    return "audio" if len(shape) in (2, 3) and shape[-1] >= LONG else "other"


def _channels(shape: Sequence[int]) -> int | None:
    """The axis of the channels of an image."""
    return next((axis for axis in (1, 3) if shape[axis] in (1, 3, 4)), None)


def sizes(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of images."""
    return (shape[2], shape[3]) if _channels(shape) == 1 else (shape[1], shape[2])


def mixable(kinds: Mapping[str, InputKind]) -> bool:
    """Whether samples can be mixed: all that one holds, or else it would be of two samples in its parts."""
    return bool(kinds) and all(kind in _ADDED or kind == "text" for kind in kinds.values())


def changed(
    inputs: Inputs, kinds: Mapping[str, InputKind], changes: Changes, chance: np.random.Generator, led: float = 1.0
) -> tuple[Inputs, bool]:
    """A batch with the changes, and whether images, signals and texts of a sample were mixed with those of another."""
    found = dict(inputs)
    count = len(next(iter(inputs.values())))
    placed = [name for name, kind in kinds.items() if kind in _PLACED]
    if placed and changes.flip:
        found = mirrored(found, kinds, chance.random(count) < 0.5)
    if placed and changes.shift and chance.random() < 0.5:
        found = shifted(found, kinds, *offset(found[placed[0]], chance))
    mixes = changes.mix and count > 1 and chance.random() < 0.5 * led
    if mixes:
        order, share, place = torch.from_numpy(chance.permutation(count)), float(chance.uniform()), chance.random()
        mixes = any(kind in _ADDED or (kind == "text" and _span(found[name], share)) for name, kind in kinds.items())
        for name, kind in kinds.items():
            found[name] = _mixed(found[name], order.to(found[name].device), share, kind, place)
    return found, mixes


def mirrored(inputs: Inputs, kinds: Mapping[str, InputKind], which: Bools) -> Inputs:
    """A batch with the images of some samples mirrored, and their masks."""
    return inputs | {name: flipped(inputs[name], which) for name, kind in kinds.items() if kind in _PLACED}


def shifted(inputs: Inputs, kinds: Mapping[str, InputKind], down: float, right: float) -> Inputs:
    """A batch with its images and their masks moved, each by these parts of what it moves by at the most."""
    return inputs | {name: moved(inputs[name], down, right) for name, kind in kinds.items() if kind in _PLACED}


def flipped(images: Tensor, which: Bools) -> Tensor:
    """Some images of a batch mirrored, left to right."""
    axis = 3 if _channels(images.shape) == 1 else 2
    mask = torch.as_tensor(np.asarray(which), device=images.device).view(-1, 1, 1, 1)
    return torch.where(mask, images.flip(axis), images)


def offset(images: Tensor, chance: np.random.Generator) -> tuple[float, float]:
    """A random offset of images by whole pixels, down and right, in parts of the furthest."""
    y, x = (int(chance.integers(-reach, reach + 1)) / max(1, reach) for reach in _reaches(images))
    return y, x


def _reaches(images: Tensor) -> tuple[int, int]:
    """Pixels that images move by at the most, down and right, or up and left."""
    height, width = sizes(images.shape)
    return height // SHIFT, width // SHIFT


def moved(images: Tensor, down: float, right: float) -> Tensor:
    """A batch of images moved by parts (-1 to 1) of what they move by at the most, with edges reflected."""
    first = 2 if _channels(images.shape) == 1 else 1
    for axis, part, reach in zip((first, first + 1), (down, right), _reaches(images), strict=True):
        last = images.shape[axis] - 1
        places = (torch.arange(last + 1, device=images.device) + round(part * reach)).abs()
        images = images.index_select(axis, torch.where(places > last, 2 * last - places, places))
    return images.contiguous()


def _span(texts: Tensor, share: float) -> int:
    """How many ids of each text are taken from another one."""
    return int(texts.shape[1] * SPAN * share)


def _mixed(value: Tensor, order: Tensor, share: float, kind: InputKind, place: float) -> Tensor:
    """Signals are added (mixup, arXiv 1710.09412); of a text a span is taken from the other one, ids and mask alike."""
    if kind in _ADDED:
        return share * value + (1 - share) * value[order]
    if kind == "text":
        span = _span(value, share)
        start = int((value.shape[1] - span + 1) * place)
        found = value.clone()
        found[:, start : start + span] = value[order][:, start : start + span]
        return found
    return value
