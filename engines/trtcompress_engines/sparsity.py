"""Whether the weights of a graph are 2:4 sparse, so that TensorRT is to try its sparse kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LEAST = 64
"""Weights of fewer elements are none that a kernel is chosen for."""


def sparse_weights(path: Path) -> tuple[str, ...]:
    """Names of the stored matrices and filters of which two of every four elements in a row are zero.

    In a row means along the axis that is summed over: the first of a matrix, or the second of what has output channels
    first. Integers count as floats do. A tensor of zeros is none.
    """
    import onnx_ir as ir

    held = ir.load(path).graph.initializers.items()
    return tuple(name for name, value in held if value.const_value is not None and _sparse(value.const_value.numpy()))


def _sparse(weight: NDArray[np.generic]) -> bool:
    import numpy as np

    if weight.ndim < 2 or weight.size < _LEAST or not weight.any() or 2 * np.count_nonzero(weight) > weight.size:
        return False
    return any(_along(weight, axis) for axis in (0, 1))


def _along(weight: NDArray[np.generic], axis: int) -> bool:
    import numpy as np

    if weight.shape[axis] % 4:
        return False
    fours = np.moveaxis(weight != 0, axis, -1).reshape(-1, 4)
    return bool((fours.sum(axis=1) <= 2).all())
