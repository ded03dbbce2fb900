"""Regions cut out of images."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import op

Ints = tuple[int, ...]


@op("RoiAlign")
def roi_align(
    x: Tensor,
    rois: Tensor,
    batches: Tensor,
    /,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Regions of equal size cut out of images, by bilinear samples (arXiv 1703.06870)."""
    found = [
        _aligned(
            x[int(batches[i])],
            rois[i] * spatial_scale - (0.5 if coordinate_transformation_mode == "half_pixel" else 0.0),
            (output_height, output_width),
            sampling_ratio,
            (mode, coordinate_transformation_mode == "half_pixel"),
        )
        for i in range(rois.size(0))
    ]
    return torch.stack(found)


def _aligned(image: Tensor, roi: Tensor, shape: Ints, ratio: int, how: tuple[str, bool]) -> Tensor:
    """One region [C, height, width]."""
    mode, half = how
    extent = roi[[3, 2]] - roi[[1, 0]]
    extent = extent if half else extent.clamp(min=1.0)
    lines = []
    for axis in range(2):
        step = extent[axis] / shape[axis]
        count = ratio or max(int(torch.ceil(step)), 1)
        place = torch.arange(shape[axis], device=image.device)[:, None] * step
        lines.append(roi[1 - axis] + place + (torch.arange(count, device=image.device) + 0.5) * step / count)
    rows, columns = lines
    if mode == "max":
        return _greatest_corner(image, rows, columns)
    weights_y, weights_x = _bilinear(rows, image.size(1)), _bilinear(columns, image.size(2))
    return torch.einsum("iah,jbw,chw->cij", weights_y, weights_x, image) / (rows.size(1) * columns.size(1))


def _greatest_corner(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The greatest of the four weighted elements around each sample; one of no weight is 0 [C, height, width]."""
    (y, weights_y), (x, weights_x) = _corners(rows, image.size(1)), _corners(columns, image.size(2))
    found = image[:, y[:, None, :, :, None, None], x[None, :, None, None]]
    return (found * weights_y[:, None, :, :, None, None] * weights_x[None, :, None, None]).amax((1, 2, 4, 6))


def _corners(places: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The elements before and behind each place and how much they count, [2, ...]; nothing beyond one step outside."""
    at = places.clamp(0, length - 1)
    before = at.floor()
    weights = torch.stack([1 - (at - before), at - before]) * ((places >= -1) & (places <= length))
    return torch.stack([before, (before + 1).clamp(max=length - 1)]).to(torch.int64), weights


def _bilinear(places: Tensor, length: int) -> Tensor:
    """How much each element of a line counts at each place, [..., length]; nothing beyond one step outside."""
    inside = (places >= -1) & (places <= length)
    at = places.clamp(0, length - 1)[..., None]
    line = torch.arange(length, device=places.device)
    return (1 - (at - line).abs()).clamp(min=0) * inside[..., None]
