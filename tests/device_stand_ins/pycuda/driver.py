"""The calls of pycuda.driver that a kit makes."""

import ctypes
import os


class Error(Exception):
    pass


class MemoryError(Error):
    pass


class DeviceAllocation:
    def __init__(self, size):
        self._memory = ctypes.create_string_buffer(size)

    def __int__(self):
        return ctypes.addressof(self._memory)


class Stream:
    handle = 7

    def synchronize(self):
        pass


def mem_alloc(size):
    if "STAND_IN_FULL" in os.environ:
        raise MemoryError("cuMemAlloc failed: out of memory")
    return DeviceAllocation(size)


def memcpy_htod(dest, src):
    ctypes.memmove(int(dest), src.ctypes.data, src.nbytes)


def memcpy_dtoh(dest, src):
    ctypes.memmove(dest.ctypes.data, int(src), dest.nbytes)
