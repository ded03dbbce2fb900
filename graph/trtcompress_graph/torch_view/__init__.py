"""The torch view: ONNX graphs as modules of PyTorch that can be trained, and their weights back into the file.

    module = to_torch("model.onnx")
    ...                                 # train
    to_onnx(module, like="model.onnx", out="trained.onnx")  # without `out` an onnx.ModelProto

`op` registers an operator that is missing. Importing this package imports PyTorch.
"""

from __future__ import annotations

from .batchnorm import load_plain, settle_batchnorm
from .convert import to_torch
from .quantizers import activation_quantizers, least_ratios
from .registry import OPS, op
from .write_back import learned_scales, to_onnx

__all__ = [
    "OPS",
    "activation_quantizers",
    "learned_scales",
    "least_ratios",
    "load_plain",
    "op",
    "settle_batchnorm",
    "to_onnx",
    "to_torch",
]
