"""Which GPUs this machine has, as the driver tells; nothing heavy is loaded."""

from __future__ import annotations

import ctypes

LIBRARIES = ("libcuda.so.1", "nvcuda.dll")


def gpu_names() -> list[str]:
    """Names of the NVIDIA GPUs that the driver shows to this process, in its order; none where there is no driver."""
    for library in LIBRARIES:
        try:
            driver = ctypes.CDLL(library)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return [_name(driver, index) for index in range(count.value)]
    return []


def _name(driver: ctypes.CDLL, index: int) -> str:
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    return name.value.decode(errors="replace")
