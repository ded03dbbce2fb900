"""PyTorch to ONNX, or an ONNX file taken in: the reference that everything after is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.model import Model

from ..config import BuildConfig
from ..datasets import open_data
from ..stage import DataRef, ModelRef, StageSettings, stage

Array = NDArray[np.generic]

COMPARED = 8
"""Real samples that the exported graph and PyTorch are compared on."""


class ExportSettings(StageSettings):
    """Settings of the export stage."""

    trust_pickle: bool

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the section `model`."""
        return cls(trust_pickle=config.model.trust_pickle)


@stage(
    output="exported",
    version=1,
    leaves="models/exported",
    libs=("torch", "onnx", "onnx-ir", "onnxscript", "transformers"),
)
def export(
    model: ModelRef,
    axes: dict[str, dict[str, AxisRange]],
    calibration: DataRef,
    settings: ExportSettings,
    out: Path,
) -> Model:
    """Write the model as ONNX and compare it with PyTorch on real data.

    Raises:
        ModelError: the model is damaged, unsafe or unsupported.
        ExportError: the graph does not give PyTorch's answers.
    """
    from ..exporting import export_model
    from ..profiles import named_axes

    exported = export_model(
        model.source,
        base=model.base,
        axes=axes,
        trust_pickle=settings.trust_pickle,
        out=out / "model.onnx",
    )
    named_axes(exported, axes)
    return exported


def real_samples(data: DataRef) -> Callable[[Model], Iterator[Mapping[str, Array]]]:
    """The first real samples, for a model that is not there yet."""

    def samples(exported: Model) -> Iterator[Mapping[str, Array]]:
        for sample in open_data(data, exported, samples=COMPARED):
            yield sample.inputs

    return samples
