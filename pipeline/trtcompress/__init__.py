"""Build small, fast, checked inference engines from PyTorch and ONNX models.

    from trtcompress import build, load_config
    result = build(load_config("build.yaml"))

Importing this package costs nothing; each name is imported when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # which typing has too, and importing it costs 9 ms
if TYPE_CHECKING:
    from typing import Any

    from trtcompress_graph.torch_view import to_onnx as to_onnx
    from trtcompress_graph.torch_view import to_torch as to_torch

    from .api import build as build
    from .api import load_config as load_config
    from .outcome import BuildResult as BuildResult

__version__ = "0.1.0"
__all__ = ["BuildResult", "__version__", "build", "load_config", "to_onnx", "to_torch"]

_VIEW = "trtcompress_graph.torch_view"
_HOMES = {"BuildResult": ".outcome", "build": ".api", "load_config": ".api", "to_onnx": _VIEW, "to_torch": _VIEW}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trtcompress' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name], __name__), name)
