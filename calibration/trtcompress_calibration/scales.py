"""From a range to a scale and a zero point, and from floats to the integers that ONNX specifies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trtcompress_graph.encoding import Encoding, FloatType
from trtcompress_graph.ranges import TensorRange

Floats = npt.NDArray[np.float32]

F8_MAX = 448
"""Greatest FP8 number: E4M3 without infinities, `float8e4m3fn` of ONNX."""

_LIMITS = {"u8": (0, 255), "s8": (-128, 127)}
_DTYPES: dict[str, type[np.uint8] | type[np.int8]] = {"u8": np.uint8, "s8": np.int8}
_HALF_NORMAL = np.float32(2.0**-14)
_HALF_MAX = np.float32(65504)


@dataclass(frozen=True, slots=True)
class Scale:
    """How one tensor is quantized: `q = saturate(round(x / scale) + zero_point)`; the type of q is the zero point's."""

    scale: np.float32
    zero_point: np.uint8 | np.int8


def activation_scale(measured: TensorRange, encoding: Encoding) -> Scale:
    """Scale of an activation whose threshold is known.

    FP8: all that was seen is held, the greatest on 448; its steps grow with the numbers, so that nothing is won by
    clipping. Symmetric: the threshold falls on 127. Asymmetric: what was seen within the threshold, with zero, fills 0
    to 255, so that the zero point is 0 after a rectifier.
    """
    assert encoding.activation is not None
    assert measured.threshold is not None
    if encoding.activation == "f8":
        zero: Any = to_f8(np.zeros(1, np.float32))[0]
        return Scale(_stored(measured.amax / F8_MAX, encoding), zero)
    low, high = _LIMITS[encoding.activation]
    dtype = _DTYPES[encoding.activation]
    if encoding.symmetric:
        scale = _stored(measured.threshold / 127, encoding)
        return Scale(scale, dtype(128 if low == 0 else 0))
    bottom = min(0.0, max(measured.min, -measured.threshold))
    top = max(0.0, min(measured.max, measured.threshold))
    scale = _stored((top - bottom) / (high - low), encoding)
    return Scale(scale, dtype(np.clip(low + np.rint(-bottom / float(scale)), low, high)))


def quantize(values: Floats, scale: Floats, axis: int | None, limit: int) -> npt.NDArray[np.int8]:
    """QuantizeLinear to s8 with zero point 0 (half to even), saturated at `±limit`; `scale` is per index of `axis`."""
    steps = scale if axis is None else scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    quantized: npt.NDArray[np.int8] = np.clip(np.rint(values / steps), -limit, limit).astype(np.int8)
    return quantized


def to_f8(values: Floats) -> npt.NDArray[Any]:
    """float8e4m3fn, half to even; what is greater than 448 becomes 448, as QuantizeLinear saturates."""
    import ml_dtypes

    return np.clip(values, -F8_MAX, F8_MAX).astype(ml_dtypes.float8_e4m3fn)


def storable(scale: Floats, float_type: FloatType) -> Floats:
    """Scales as a graph of `float_type` can hold it.

    The nearest such number; below the normal numbers of float16, whose steps are coarse, the next one above, so that
    nothing is clipped for it.
    """
    if float_type == "float32":
        return scale
    if float_type == "bfloat16":
        import ml_dtypes

        return scale.astype(ml_dtypes.bfloat16).astype(np.float32)
    half = np.minimum(scale, _HALF_MAX).astype(np.float16)
    above = np.nextafter(half, np.float16(np.inf), dtype=np.float16)
    return np.where((scale < _HALF_NORMAL) & (half.astype(np.float32) < scale), above, half).astype(np.float32)


def joint(ranges: Iterable[TensorRange]) -> TensorRange:
    """One range for tensors that share a scale: wide enough for each."""
    held = list(ranges)
    thresholds = [r.threshold for r in held if r.threshold is not None]
    return TensorRange(
        min(r.min for r in held),
        max(r.max for r in held),
        max(thresholds) if thresholds else None,
        min(r.clipped for r in held),
    )


def _stored(step: float, encoding: Encoding) -> np.float32:
    """The step as a scale. A tensor that is always zero takes any; numbers below float32's normal range are zero."""
    positive = step if step >= np.finfo(np.float32).tiny else 1.0
    return np.float32(storable(np.asarray([positive], np.float32), encoding.float_type)[0])
