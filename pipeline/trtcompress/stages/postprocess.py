"""The user's function behind the served engine, tried on what the exported model gives: before hours of work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.model import Model

from ..config import BuildConfig, PreprocessSettings, TritonSettings
from ..kit_packing import FORMAT
from ..packaging import Around, triton_options
from ..stage import DataRef, FunctionRef, Marker, StageSettings, on_this_machine, stage


@dataclass(frozen=True)
class Answered(Marker):
    """The function was called and its answer can be served."""


class PostprocessSettings(StageSettings):
    """What is served around the engine."""

    name: str
    triton: TritonSettings
    preprocess: PreprocessSettings | None = None

    @classmethod
    def of(cls, config: BuildConfig) -> Self | None:
        """Without a function there is nothing to try; what an ONNX file gives is known before (`served_tried.py`)."""
        return None if tried_before(config) else cls.asked(config)

    @classmethod
    def asked(cls, config: BuildConfig) -> Self | None:
        """From the section `triton`; None where no function is served."""
        triton = config.triton
        if triton.postprocess is None or not any(form != FORMAT for form in config.package):
            return None
        preprocess = config.data.calibration.preprocess if triton.preprocess else None
        return cls(name=config.name, triton=triton, preprocess=preprocess)


def tried_before(config: BuildConfig) -> bool:
    """Whether the outputs are known before any work: those of an ONNX file that is taken as it is."""
    return config.model.source.endswith(".onnx") and not config.model.fix


@stage(
    output="answered",
    version=1,
    leaves="models/answered",
    libs=("onnxruntime", "numpy", "pillow"),
    device=on_this_machine,
)
def postprocess(
    exported: Model,
    evaluation: DataRef,
    postprocess: FunctionRef,
    axes: dict[str, dict[str, AxisRange]],
    settings: PostprocessSettings,
) -> Answered:
    """Call the function on the outputs for some samples, alone in a process, as the package stage does again.

    Costs one inference of a few samples.

    Raises:
        DataError: the samples do not fit the model.
        CompileError: the function cannot be imported, fails, or returns what cannot be served.
    """
    from ..served_steps import try_steps

    triton = settings.triton
    section = settings.preprocess.model_dump(mode="json") if settings.preprocess else None
    around = Around(section, postprocess, triton.sources, evaluation)
    try_steps(exported, name=settings.name, axes=axes, around=around, options=triton_options(triton))
    return Answered()
