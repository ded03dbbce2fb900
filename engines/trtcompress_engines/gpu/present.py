"""Which GPUs this machine has, as the driver tells; nothing heavy is loaded."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import TypeVar

from trtcompress_graph.target import Target

LIBRARIES = ("libcuda.so.1", "nvcuda.dll")


MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the CUDA driver API."""

Read = TypeVar("Read")


def gpu_names() -> list[str]:
    """Names of the NVIDIA GPUs that the driver shows to this process, in its order; none where there is no driver."""
    return _each(_name)


def gpu_capabilities() -> list[tuple[int, int]]:
    """Compute capabilities of the same GPUs."""
    return _each(_capability)


def _each(read: Callable[[ctypes.CDLL, ctypes.c_int], Read]) -> list[Read]:
    for library in LIBRARIES:
        try:
            driver = ctypes.CDLL(library)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return [read(driver, _device(driver, index)) for index in range(count.value)]
    return []


def _device(driver: ctypes.CDLL, index: int) -> ctypes.c_int:
    device = ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(device), index)
    return device


def _name(driver: ctypes.CDLL, device: ctypes.c_int) -> str:
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), device)
    return name.value.decode(errors="replace")


def _capability(driver: ctypes.CDLL, device: ctypes.c_int) -> tuple[int, int]:
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    for number, attribute in ((major, MAJOR), (minor, MINOR)):
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
    return major.value, minor.value


def has_less_memory(title: str, target: Target) -> bool:
    """Whether the name of a card tells of less memory than the target has: `NVIDIA A100-SXM4-40GB` is none of 80 GB."""
    told = memory_in(title)
    return told is not None and target.memory_gb is not None and told < 0.9 * target.memory_gb


def is_of_model(title: str, target: Target) -> bool:
    """Whether a card is of the target's model: `NVIDIA A100-SXM4-80GB` is an A100, and an L40S is no L4."""
    model = next((word for word in _words(target.title) if word not in ("nvidia", "tesla")), "")
    return model in _words(title)


def _words(title: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", title.lower())


def memory_in(title: str) -> float | None:
    """GB that the name of a card tells; None where it tells none."""
    found = re.search(r"(?<![a-z0-9])(\d+) ?gb?(?![a-z0-9])", title.lower())
    return float(found[1]) if found else None
