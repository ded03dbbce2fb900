"""A model on disk, as it flows from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Dim = int | str


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor. `dtype` is numpy's name; a dynamic axis stands in `shape` by its name."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """An ONNX file that was checked.

    Attributes:
        path: the `.onnx` file; external data lies beside it.
        digest: SHA-256 (hex) over the file and its external data.
        inputs: graph inputs that have no default, in order.
        outputs: graph outputs, in order.
    """

    path: Path
    digest: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
