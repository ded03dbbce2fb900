"""PyTorch to ONNX, or an ONNX file taken in: the reference that everything after is compared with."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.model import Model

from ..config import BuildConfig
from ..datasets import open_data, raw_samples
from ..stage import DataRef, ModelRef, StageSettings, stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

_log = logging.getLogger(__name__)

COMPARED = 8
"""Real samples that the exported graph and PyTorch are compared on."""


class ExportSettings(StageSettings):
    """Settings of the export stage."""

    trust_pickle: bool
    fix: dict[str, Any]

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the section `model`."""
        return cls(trust_pickle=config.model.trust_pickle, fix=config.model.fix)


@stage(
    output="exported",
    version=3,
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

    written = out / "model.onnx"
    exported = export_model(
        model.source,
        base=model.base,
        axes=axes,
        samples=real_samples(calibration, model.source, written),
        trust_pickle=settings.trust_pickle,
        fix=settings.fix,
        out=written,
        tell=_log.info,
    )
    named_axes(exported, axes)
    return exported


def real_samples(data: DataRef, source: str, written: Path) -> Iterator[Mapping[str, Array]]:
    """The first real samples. Nothing is read before they are asked for: then the model is written.

    A pickled module is asked for the samples to export it with; they come as they are, nothing tells its inputs.
    """
    if source.endswith((".pt", ".pth")):
        yield from raw_samples(data, COMPARED)
        return
    from trtcompress_calibration.data import batches

    exported = written_model(written)
    for batch in batches(open_data(data, exported, samples=COMPARED), exported.inputs, 1):
        yield batch.inputs


def written_model(path: Path) -> Model:
    """An ONNX file that was checked already."""
    import onnx

    from trtcompress_graph.load import describe

    return describe(onnx.load(path, load_external_data=False), path)
