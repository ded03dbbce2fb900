"""Arrays out of Triton's tensors and back, without a copy where possible.

Over DLPack, not `as_numpy` and `Tensor(name, array)`: with numpy 2, Triton before 24.11 reads numpy's type
descriptors wrongly, hands out zeros and sends empty outputs, and says nothing
(https://github.com/triton-inference-server/python_backend/pull/384).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


def to_array(tensor: Any) -> Any:
    """The tensor's values; read them before the request is answered."""
    return np.from_dlpack(tensor)


def to_tensor(name: str, array: Any) -> Any:
    """A tensor that Triton sends back under this name."""
    if array.size == 0:  # Triton takes an empty DLPack tensor for one that is not contiguous
        return pb_utils.Tensor(name, array)
    return pb_utils.Tensor.from_dlpack(name, np.require(array, requirements=["C", "W"]))
