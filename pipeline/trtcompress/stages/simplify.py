"""Folding and clean-up, with names kept."""

from __future__ import annotations

import logging
from pathlib import Path

from trtcompress_graph.model import Model

from ..stage import StageSettings, stage
from .postprocess import Answered
from .samples import Fitting

_log = logging.getLogger(__name__)


class SimplifySettings(StageSettings):
    """Settings of the simplify stage."""


@stage(output="simplified", version=2, leaves="models/simplified", libs=("onnx", "onnx-ir", "onnxscript"))
def simplify(
    exported: Model,
    settings: SimplifySettings,
    out: Path,
    answered: Answered | None = None,
    fitting: Fitting | None = None,
) -> Model:
    """Fold constants and BatchNorm, upgrade the opset, remove what is not used.

    `answered` and `fitting` are not read: nothing is worked on before the user's function behind the model, and the
    samples, were found to do.
    """
    from trtcompress_graph.branches import open_branches
    from trtcompress_graph.load import load_ir
    from trtcompress_graph.simplify import simplify as simplify_model

    simplified = simplify_model(exported, out / "model.onnx")
    for told in open_branches(load_ir(simplified)):
        _log.info(told)
    return simplified
