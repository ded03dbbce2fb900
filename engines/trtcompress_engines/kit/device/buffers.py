"""Memory on the device and one stream: over pycuda where it is installed, else over ctypes on the CUDA runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .kit import KitError

LIBRARIES = (
    *("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so.10.2", "libcudart.so"),
    *("/usr/local/cuda/lib64/libcudart.so", "/usr/local/cuda/targets/aarch64-linux/lib/libcudart.so"),
)
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind


class PyCuda:
    """Over pycuda.

    Raises:
        ImportError: it is not installed.
        KitError: there is no GPU, or it cannot be used, with CUDA's own words; so do its methods.
    """

    name = "pycuda"

    def __init__(self) -> None:
        import pycuda.driver

        self._driver = pycuda.driver
        self.call(_make_context)
        self._stream = self.call(pycuda.driver.Stream)
        self.stream = int(self._stream.handle)

    def allocate(self, size: int) -> Any:
        """A buffer of `size` bytes; `int()` of it is its address, and it is free when it is forgotten."""
        return self.call(self._driver.mem_alloc, max(size, 1))

    def upload(self, buffer: Any, array: Any) -> None:
        """Copy a contiguous array to the device."""
        self.call(self._driver.memcpy_htod, buffer, array)

    def download(self, array: Any, buffer: Any) -> None:
        """Copy from the device into a contiguous array."""
        self.call(self._driver.memcpy_dtoh, array, buffer)

    def synchronize(self) -> None:
        """Wait for the stream."""
        self.call(self._stream.synchronize)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of pycuda.

        Raises:
            KitError: it fails, with CUDA's own words.
        """
        try:
            return function(*arguments)
        except self._driver.Error as error:
            raise KitError(f"CUDA failed: {error}", code=4) from error


def _make_context() -> None:
    try:
        import pycuda.autoprimaryctx
    except ImportError:  # before pycuda 2021.1
        import pycuda.autoinit  # noqa: F401


class CudaRuntime:
    """Over ctypes.

    Args:
        library: libcudart.
    """

    name = "libcudart"

    def __init__(self, library: Any) -> None:
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p
        stream = ctypes.c_void_p()
        self.call("cudaStreamCreate", ctypes.byref(stream))
        self.stream = int(stream.value or 0)

    def allocate(self, size: int) -> Any:
        """A buffer of `size` bytes; `int()` of it is its address, and it is free when it is forgotten."""
        return _Allocation(self, max(size, 1))

    def upload(self, buffer: Any, array: Any) -> None:
        """Copy a contiguous array to the device."""
        self._copy(int(buffer), array.ctypes.data, array.nbytes, _TO_DEVICE)

    def download(self, array: Any, buffer: Any) -> None:
        """Copy from the device into a contiguous array."""
        self._copy(array.ctypes.data, int(buffer), array.nbytes, _TO_HOST)

    def synchronize(self) -> None:
        """Wait for the stream."""
        self.call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def _copy(self, to: int, source: int, size: int, kind: int) -> None:
        to_, source_ = ctypes.c_void_p(to), ctypes.c_void_p(source)
        self.call("cudaMemcpy", to_, source_, ctypes.c_size_t(size), ctypes.c_int(kind))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the runtime.

        Raises:
            KitError: it fails, with CUDA's own words.
        """
        status = getattr(self._library, name)(*arguments)
        if status:
            words = self._library.cudaGetErrorString(status)
            raise KitError(f"{name} failed: {words.decode()} (error {status})", code=4)


class _Allocation:
    def __init__(self, runtime: CudaRuntime, size: int) -> None:
        self._runtime = runtime
        pointer = ctypes.c_void_p()
        runtime.call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size))
        self._address = int(pointer.value or 0)

    def __int__(self) -> int:
        return self._address

    def __del__(self) -> None:
        if getattr(self, "_address", 0):
            self._runtime.call("cudaFree", ctypes.c_void_p(self._address))


if TYPE_CHECKING:
    Device = PyCuda | CudaRuntime


def open_device() -> Device:
    """The GPU, over what is there.

    Raises:
        KitError: neither pycuda nor the CUDA runtime is there.
    """
    try:
        return PyCuda()
    except ImportError:
        pass  # the CUDA runtime, over ctypes, does as well
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        return CudaRuntime(library)
    raise KitError("no CUDA runtime was found: add the folder of libcudart.so to LD_LIBRARY_PATH, or install pycuda")
