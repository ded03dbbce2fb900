"""A graph in an older opset, for parsers that take no newer one."""

from __future__ import annotations

from .lower import lower
from .widen import quantizes_halves, widen

__all__ = ["lower", "quantizes_halves", "widen"]
