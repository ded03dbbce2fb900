"""The engine that is shipped, packed for a server, or all engines of a device as a kit that builds them there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from trtcompress_engines.gates import EMULATED
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges
from trtcompress_graph.target import Target

from ..builder import DEFAULT, BuilderRef
from ..config import BuildConfig, MeasureSettings, PackageFormat, PreprocessSettings, TritonSettings
from ..kit_packing import FORMAT, KitSources, implicit_of, no_kit_for, pack_kit
from ..packaging import Around, pack
from ..stage import DataRef, FunctionRef, StageSettings, stage
from ..validation import Packages, Validation


class PackageSettings(StageSettings):
    """Settings of the package stage.

    Attributes:
        measure: what a kit times; None where none is asked for.
        pruned: whether the kit compares with the pruned float model too.
        preprocess: how images become inputs, where that is served.
    """

    name: str
    formats: tuple[PackageFormat, ...]
    triton: TritonSettings
    measure: MeasureSettings | None
    pruned: bool
    preprocess: PreprocessSettings | None = None

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the keys `name` and `package` and the section `triton`; for a kit also from `measure` and `prune`."""
        kit = FORMAT in config.package
        return cls(
            name=config.name,
            formats=config.package,
            triton=config.triton,
            measure=config.measure if kit else None,
            pruned=kit and config.prune is not None,
            preprocess=config.data.calibration.preprocess if config.triton.preprocess else None,
        )

    def unread(self) -> frozenset[str]:
        """Models and ranges go into a kit alone; what is asked of TensorRT also into engines of towers.

        On samples a function of the user's is tried, too.
        """
        if FORMAT in self.formats:
            return frozenset()
        kit = ("exported", "student", "equalized", "ranges", "plans", "encodings")
        samples = () if self.triton.postprocess else ("evaluation",)
        return frozenset((*kit, *samples) if self.triton.towers else (*kit, *samples, "builder"))


def _runs_the_reference(inputs: Mapping[str, Any]) -> bool:
    """Golden outputs of a kit are computed here, and those that a function of the user's is tried on."""
    return inputs.get("evaluation") is not None


@stage(
    output="packages",
    version=15,
    leaves=".",
    scope="target",
    libs=("onnxruntime", "numpy", "pillow"),
    device=_runs_the_reference,
)
def package(
    validation: Validation,
    target: Target,
    axes: dict[str, dict[str, AxisRange]],
    settings: PackageSettings,
    out: Path,
    exported: Model | None = None,
    student: Model | None = None,
    equalized: Model | None = None,
    ranges: Ranges | None = None,
    plans: tuple[PrecisionPlan, ...] = (),
    encodings: tuple[Encoding, ...] = (),
    evaluation: DataRef | None = None,
    builder: BuilderRef = DEFAULT,
    postprocess: FunctionRef | None = None,
) -> Packages:
    """Write a Triton model repository for each format, `FORMAT/TARGET/NAME`, and a kit as `jetson/TARGET`.

    Raises:
        DataError: for a kit, or a postprocessing: the samples do not fit the model.
        CompileError: the postprocessing fails on the engine's outputs.
    """
    sources = None
    if FORMAT in settings.formats and not no_kit_for(target):
        assert exported
        assert equalized
        assert ranges
        assert evaluation
        assert settings.measure
        shipped = validation.shipped
        sources = KitSources(
            name=settings.name,
            target=target,
            engines=tuple(candidate.engine for candidate in validation.candidates),
            gates=tuple((g.gate, g.limit) for g in shipped.gates if not g.gate.endswith(EMULATED)),
            metrics=tuple(metric.name for metric in shipped.metrics),
            reference=exported,
            pruned=student if settings.pruned else None,
            implicit=implicit_of(equalized, ranges, plans, encodings),
            data=evaluation,
            axes=axes,
            measure=settings.measure,
            builder=builder,
        )
    triton = settings.triton
    section = settings.preprocess.model_dump(mode="json") if settings.preprocess else None
    around = Around(section, postprocess, triton.sources, evaluation if postprocess else None)
    folders: dict[str, Path] = {}
    notes = []
    for form in settings.formats:
        folder = out / form / target.name
        if form != FORMAT:
            note = pack(
                *(validation.engine, target, folder),
                name=settings.name,
                form=form,
                axes=axes,
                triton=triton,
                builder=builder,
                around=around,
                with_kit=FORMAT in settings.formats,
            )
        elif sources:
            note = ""
            folder.mkdir(parents=True)
            pack_kit(sources, folder)
        else:
            note = no_kit_for(target)
        if note and (form != FORMAT or len(settings.formats) == 1):
            notes.append(note)
        if not note:
            folders[form] = folder
    return Packages(target.name, folders, tuple(notes))
