"""A GPU of this machine, through pycuda."""

from __future__ import annotations

from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

MISSING = "pycuda is not installed: pip install '.[cuda]' (in a checkout)"


def missing_pycuda() -> str:
    """Empty where pycuda is installed, else what to type. Loads nothing."""
    return "" if find_spec("pycuda") else MISSING


class GpuDevice:
    """The first GPU that this process may use; its primary context is current in this thread inside a `with` block.

    `pycuda.autoprimaryctx` would make it current in the thread that imports it first, and stages run in several.

    Attributes:
        driver: `pycuda.driver`.
        bus_id: of the card on the PCI bus, by which nvidia-smi knows it.
    """

    driver: Any
    bus_id: str

    def __enter__(self) -> Self:
        import pycuda.driver

        self.driver = pycuda.driver
        self.driver.init()
        device = self.driver.Device(0)
        self.bus_id = device.pci_bus_id()
        self._context = device.retain_primary_context()  # the context that TensorRT uses too
        self._context.push()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.pop()
