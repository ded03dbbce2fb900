"""Folding and clean-up, with names kept."""

from __future__ import annotations

from pathlib import Path

from trtcompress_graph.model import Model

from ..stage import StageSettings, stage


class SimplifySettings(StageSettings):
    """Settings of the simplify stage."""


@stage(output="simplified", version=1, leaves="models/simplified", libs=("onnx", "onnx-ir", "onnxscript"))
def simplify(exported: Model, settings: SimplifySettings, out: Path) -> Model:
    """Fold constants and BatchNorm, upgrade the opset, remove what is not used."""
    from trtcompress_graph.simplify import simplify as simplify_model

    return simplify_model(exported, out / "model.onnx")
