"""The few calls of the CUDA runtime that inference needs, over ctypes: no package but CUDA itself is asked for."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind


def load_cudart() -> ctypes.CDLL:
    """The CUDA runtime that the process has already, or the newest that the loader finds.

    Raises:
        RuntimeError: there is none.
    """
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError(f"no CUDA runtime found: none of {', '.join(LIBRARIES)} is on LD_LIBRARY_PATH")


class Cuda:
    """A device and one stream on it; every call raises RuntimeError with CUDA's own words where it fails.

    Args:
        device: number of the GPU.
        library: libcudart.
    """

    def __init__(self, device: int, library: Any) -> None:
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p
        stream = ctypes.c_void_p()
        self._device = device
        self.use()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        self.stream = int(stream.value or 0)

    def use(self) -> None:
        """Make the device current for this thread."""
        self._call("cudaSetDevice", ctypes.c_int(self._device))

    def allocate(self, size: int) -> int:
        """Address of a new device buffer of `size` bytes."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size))
        return int(pointer.value or 0)

    def free(self, address: int) -> None:
        """Give a device buffer back."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def upload(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Queue a copy of a contiguous array to the device; the array must live until `synchronize`."""
        self._copy(address, array.ctypes.data, array.nbytes, _TO_DEVICE)

    def download(self, array: np.ndarray[Any, Any], address: int) -> None:
        """Queue a copy from the device into a contiguous array."""
        self._copy(array.ctypes.data, address, array.nbytes, _TO_HOST)

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def close(self) -> None:
        """Give the stream back."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(self.stream))

    def _copy(self, to: int, source: int, size: int, kind: int) -> None:
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(to),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            ctypes.c_int(kind),
            ctypes.c_void_p(self.stream),
        )

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            words = self._library.cudaGetErrorString(status)
            raise RuntimeError(f"{name} failed: {words.decode()} (error {status})")
