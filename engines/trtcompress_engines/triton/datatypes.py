"""Data types of Triton, and which of them each way of serving can carry.

Source: the table "Datatypes" of Triton's user guide, page "Model Configuration".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from trtcompress_graph.errors import CompileError
from trtcompress_graph.model import TensorSpec

TRITON_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "object": "TYPE_STRING",
    "bfloat16": "TYPE_BF16",
}
"""numpy's name -> name in `config.pbtxt`."""

ONNXRUNTIME_TYPES = frozenset(TRITON_TYPES) - {"bfloat16"}

PYTHON_TYPES = ONNXRUNTIME_TYPES - {"object"}
"""What numpy and DLPack share."""

STEP_TYPES = PYTHON_TYPES | {"object"}
"""What travels between the steps of an ensemble: bytes too."""

TENSORRT_TYPES = frozenset({"bool", "uint8", "int8", "int32", "int64", "float16", "float32", "bfloat16"})


@dataclass(frozen=True, slots=True)
class Backend:
    """What in Triton runs a model.

    Attributes:
        field: `backend`, or `platform` for what Triton calls so.
        name: for example `onnxruntime`.
        carried: data types that it carries, by numpy's names.
    """

    field: Literal["backend", "platform"]
    name: str
    carried: frozenset[str]


def check_types(tensors: Iterable[TensorSpec], backend: Backend) -> None:
    """Refuse tensors that a backend cannot carry.

    Raises:
        CompileError: the first such tensor.
    """
    for spec in tensors:
        if spec.dtype not in backend.carried:
            served = ", ".join(sorted(backend.carried))
            raise CompileError(
                f"Triton's {backend.name} backend cannot carry tensors of type {spec.dtype}",
                where=f"tensor '{spec.name}'",
                hint=f"cast it inside the model to one of: {served}",
            )
