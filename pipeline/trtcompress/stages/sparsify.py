"""Two of every four weights set to zero, for the sparse kernels of TensorRT."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Self

from trtcompress_graph.model import Model

from ..config import BuildConfig
from ..datasets import open_data
from ..stage import DataRef, Progress, StageSettings, on_this_machine, stage
from ..trials import TriedModel


class SparsifyStageSettings(StageSettings):
    """Settings of the sparsify stage."""

    skip: tuple[str, ...]
    compensate: bool
    samples: int

    @classmethod
    def of(cls, config: BuildConfig) -> Self | None:
        """From the section `sparsify`; weights stay dense where there is none."""
        section = config.sparsify
        if section is None:
            return None
        return cls(skip=section.skip, compensate=section.compensate, samples=section.samples)


@stage(
    output="sparse",
    takes="student",
    version=1,
    leaves="models/sparse",
    libs=("onnx", "onnx-ir", "onnxruntime", "numpy", "pillow"),
    device=on_this_machine,
)
def sparsify(
    student: Model, calibration: DataRef, settings: SparsifyStageSettings, out: Path, progress: Progress
) -> TriedModel:
    """Make weights 2:4 sparse; what became of each layer lies beside the graph.

    Raises:
        ConfigError: a pattern of `skip` matches no node.
        DataError: samples that do not fit the model, or there are none.
    """
    from trtcompress_calibration.formats.sparse import sparsify as make
    from trtcompress_calibration.formats.sparse import words

    count = min(settings.samples, calibration.samples or settings.samples)
    made, layers = make(
        student,
        out / "model.onnx",
        samples=open_data(calibration, student, samples=count) if settings.compensate else None,
        skip=settings.skip,
        progress=lambda what, done, total: progress(done, total),
    )
    (out / "layers.json").write_text(json.dumps([asdict(each) for each in layers], indent=1) + "\n", encoding="utf-8")
    return TriedModel(made.path, made.digest, made.inputs, made.outputs, words(layers), ())
