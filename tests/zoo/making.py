"""How a graph of the zoo is made: by our own export and simplification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from trtcompress_graph.axes import Axes
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.simplify import simplify

Module = Callable[[], tuple[Any, Any]]
"""Returns a `torch.nn.Module` and its example inputs: a tensor, a tuple, or a dict by parameter name."""


def write_exported(name: str, build: Module, axes: Axes, trained: bool, path: Path) -> Model:
    """Export a network, with seeded weights unless it is trained; the export compares it with PyTorch."""
    import torch

    from trtcompress.exporting.network import make_network
    from trtcompress.exporting.torch_export import export_network

    from .weights import randomize

    torch.manual_seed(0)
    module, examples = build()
    if not trained:
        randomize(module.eval(), 0)
    return export_network(make_network(name, module, examples, axes), (), path, lambda _: None)


def write_simplified(proto: onnx.ModelProto, path: Path) -> Model:
    """Bring an ONNX model into the form that the pipeline prunes."""
    raw = path.with_suffix(".raw.onnx")
    raw.write_bytes(proto.SerializeToString())
    try:
        return simplify(read_model(raw), path)
    finally:
        raw.unlink()
