"""Fourier transforms and windows."""

from __future__ import annotations

import math

import onnx_ir as ir
import torch
from torch import Tensor

from ..numbers import only
from ..registry import op
from ..tensors import torch_type


@op("DFT", ints=(1, 2))
def dft(
    x: Tensor,
    length: int | None = None,
    axis: int | None = None,
    /,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    """The discrete Fourier transform along an axis; the last axis holds real and imaginary parts."""
    dim = -2 if axis is None else only(axis)
    dim = dim % x.dim()
    count = None if length is None else only(length)
    given = torch.view_as_complex(x.contiguous()) if x.size(-1) == 2 else x[..., 0]
    if onesided and inverse:
        signal: Tensor = torch.fft.irfft(given, count, dim)
        return signal[..., None]
    if onesided:
        return torch.view_as_real(torch.fft.rfft(given.real if given.is_complex() else given, count, dim))
    made = torch.fft.ifft(given, count, dim) if inverse else torch.fft.fft(given, count, dim)
    return torch.view_as_real(made)


@op("STFT", ints=(1, 3))
def stft(
    x: Tensor, step: int, window: Tensor | None = None, length: int | None = None, /, *, onesided: int = 1
) -> Tensor:
    """Fourier transforms of frames [batch, frames, frequencies, 2]."""
    size = only(length) if length is not None else (x.size(1) if window is None else window.size(0))
    signal = torch.view_as_complex(x.contiguous()) if x.dim() == 3 and x.size(-1) == 2 else x.reshape(x.shape[:2])
    frames = signal.unfold(1, size, only(step))
    frames = frames if window is None else frames * window
    made = torch.fft.rfft(frames) if onesided and not frames.is_complex() else torch.fft.fft(frames)
    return torch.view_as_real(made)


def _cosines(size: int, periodic: int, parts: tuple[float, ...], kind: int) -> Tensor:
    """A window of cosines."""
    count = only(size)
    turns = torch.arange(count, dtype=torch.float64) * (2 * math.pi / (count if periodic else count - 1))
    window = sum((part * torch.cos(turns * i) for i, part in enumerate(parts)), torch.zeros_like(turns))
    return window.to(torch_type(ir.DataType(kind)))


@op("HannWindow", ints=(0,), differentiable=False)
def hann_window(size: int, /, *, output_datatype: int = 1, periodic: int = 1) -> Tensor:
    """Hann's window."""
    return _cosines(size, periodic, (0.5, -0.5), output_datatype)


@op("HammingWindow", ints=(0,), differentiable=False)
def hamming_window(size: int, /, *, output_datatype: int = 1, periodic: int = 1) -> Tensor:
    """Hamming's window."""
    return _cosines(size, periodic, (25 / 46, -21 / 46), output_datatype)


@op("BlackmanWindow", ints=(0,), differentiable=False)
def blackman_window(size: int, /, *, output_datatype: int = 1, periodic: int = 1) -> Tensor:
    """Blackman's window."""
    return _cosines(size, periodic, (0.42, -0.5, 0.08), output_datatype)


@op("MelWeightMatrix", ints=(0, 1, 2, 3, 4), differentiable=False)
def mel_weights(
    bands: int, length: int, rate: int, lowest: float, highest: float, /, *, output_datatype: int = 1
) -> Tensor:
    """Triangles on the mel scale [frequencies, bands]."""
    count, size, rate = only(bands), only(length), only(rate)
    low, high = (2595 * math.log10(1 + only(edge) / 700) for edge in (lowest, highest))
    mels = torch.arange(count + 2, dtype=torch.float64) * ((high - low) / (count + 2)) + low
    bins = torch.floor((size + 1) * (700 * (10 ** (mels / 2595) - 1)) / rate)
    line = torch.arange(size // 2 + 1, dtype=torch.float64)[:, None]
    left, middle, right = bins[:-2], bins[1:-1], bins[2:]
    up = torch.where(middle == left, (line == middle).double(), (line - left) / (middle - left).clamp(min=1))
    up = torch.where((line >= left) & (line <= middle), up, 0)
    down = (right - line) / (right - middle).clamp(min=1)
    weights = torch.where((line > middle) & (line < right), down, up)
    return weights.to(torch_type(ir.DataType(output_datatype)))
