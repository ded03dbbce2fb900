"""Arrays out of Triton's tensors and back, without a copy where possible.

With numpy 2 over DLPack, not `as_numpy` and `Tensor(name, array)`: Triton before 24.11 reads the type descriptors of
numpy 2 wrongly, hands out zeros and sends empty outputs, and says nothing
(https://github.com/triton-inference-server/python_backend/pull/384). With numpy 1 not over DLPack: these releases of
Triton rename a capsule in a way that numpy 1 ends the process over. DLPack knows no bytes: with numpy 2 they need a
newer Triton.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

_OVER_DLPACK = int(np.__version__.partition(".")[0]) >= 2


def to_array(tensor: Any, text: bool = False) -> Any:
    """The tensor's values; read them before the request is answered. Of bytes (`text`) an array of objects."""
    return np.from_dlpack(tensor) if _OVER_DLPACK and not text else tensor.as_numpy()


def to_tensor(name: str, array: Any) -> Any:
    """A tensor that Triton sends back under this name; of text its UTF-8."""
    if array.dtype.kind in "OSU":
        items = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel().tolist()]
        texts = np.empty(len(items), dtype=object)
        texts[:] = items
        return pb_utils.Tensor(name, texts.reshape(array.shape))
    if array.size == 0:  # Triton takes an empty DLPack tensor for one that is not contiguous
        return pb_utils.Tensor(name, array)
    if not _OVER_DLPACK:
        return pb_utils.Tensor(name, np.ascontiguousarray(array))
    return pb_utils.Tensor.from_dlpack(name, _Given(np.require(array, requirements=["C", "W"])))


class _Given:
    """An array that Triton takes over.

    Triton frees it, and calls the capsule that it came in `used_dlpack`. The specification says `used_dltensor`; under
    another name numpy's destructor of the capsule prints an error into the server's log, for each output of each
    request. So there is none.
    """

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **asked: Any) -> Any:
        capsule = self._array.__dlpack__(**asked)
        _set_destructor(capsule, None)
        return capsule

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


_set_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
_set_destructor.argtypes = [ctypes.py_object, ctypes.c_void_p]


def check_text() -> None:
    """Bytes would come damaged, and end the process, where this Triton does not know this numpy.

    Raises:
        RuntimeError: it does not.
    """
    if not _OVER_DLPACK:
        return
    probe = np.arange(1, 5, dtype=np.uint8)
    if pb_utils.Tensor.from_dlpack("probe", probe).as_numpy().tolist() != probe.tolist():
        raise RuntimeError(
            f"this release of Triton cannot read bytes with numpy {np.__version__}: take Triton 24.11 or newer, or "
            "install numpy below 2 for the server's Python"
        )
