"""onnxsim's structured pruning as a peer: L2 norm of the weights, or Wanda's score with the inputs' norms."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxsim as peer

from search import greatest_within
from tasks import Arrays


def onnxsim(full: Path, kept: float, samples: Sequence[Arrays], out: Path, *, wanda: bool) -> None:
    """Cut a graph to `kept` of its multiply-accumulates, or as near as its structured pruning gets."""
    shapes = {name: (1, *array.shape[1:]) for name, array in samples[0].items()}
    whole = macs(onnx.load(full), shapes)

    def cut(sparsity: float) -> Any:
        return structured(full, sparsity, samples if wanda else ())

    model, _ = greatest_within(cut, lambda made: macs(made, shapes) / whole, kept)
    onnx.save(model, out)


def structured(full: Path, sparsity: float, samples: Sequence[Arrays] = ()) -> onnx.ModelProto:
    """Drop this share of the channels of every chain that onnxsim finds; by Wanda's score where there are samples."""
    if samples:
        model = peer.apply_structured_wanda_pruning(onnx.load(full), calibration_data=list(samples), sparsity=sparsity)
    else:
        model = peer.apply_structured_pruning(onnx.load(full), sparsity=sparsity)
    del model.graph.value_info[:]  # it keeps the old widths, and ONNX Runtime refuses them
    return model


def macs(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    from trtcompress_graph.cost import model_cost
    from trtcompress_graph.load import read_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        return model_cost(read_model(path), shapes).macs
