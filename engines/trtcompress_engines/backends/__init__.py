"""The backends: one file each, and the registry that says which serves which kind of target."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trtcompress_graph.target import How

from ..backend import Backend
from .onnxruntime import OnnxRuntimeBackend
from .tensorrt import TensorRTBackend
from .tensorrt_rtx import TensorRTForRTXBackend

BY_HOW: Mapping[How, Backend] = MappingProxyType(
    {
        "cpu": OnnxRuntimeBackend(),
        "aot": TensorRTForRTXBackend(),
        "local": TensorRTBackend(),
        "kit": TensorRTBackend(),
    }
)
