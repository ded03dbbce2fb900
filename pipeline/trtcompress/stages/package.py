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
from ..config import BuildConfig, MeasureSettings, PackageFormat, TritonSettings
from ..kit_packing import FORMAT, KitSources, implicit_of, no_kit_for, pack_kit
from ..packaging import pack
from ..stage import DataRef, StageSettings, stage
from ..validation import Packages, Validation


class PackageSettings(StageSettings):
    """Settings of the package stage.

    Attributes:
        measure: what a kit times; None where none is asked for.
        pruned: whether the kit compares with the pruned float model too.
    """

    name: str
    formats: tuple[PackageFormat, ...]
    triton: TritonSettings
    measure: MeasureSettings | None
    pruned: bool

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
        )

    def unread(self) -> frozenset[str]:
        """Models, ranges and samples go into a kit alone; what is asked of TensorRT also into engines of towers."""
        if FORMAT in self.formats:
            return frozenset()
        kit = ("exported", "student", "equalized", "ranges", "plans", "encodings", "evaluation")
        return frozenset(kit if self.triton.towers else (*kit, "builder"))


def _runs_the_reference(inputs: Mapping[str, Any]) -> bool:
    """Golden outputs are computed here, for a kit alone."""
    return inputs.get("evaluation") is not None


@stage(
    output="packages",
    version=8,
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
) -> Packages:
    """Write a Triton model repository for each format, `FORMAT/TARGET/NAME`, and a kit as `jetson/TARGET`.

    Raises:
        DataError: for a kit: the samples do not fit the model.
    """
    engine = validation.shipped.engine
    folders: dict[str, Path] = {}
    notes = []
    for form in settings.formats:
        folder = out / form / target.name
        if form == FORMAT:
            note = no_kit_for(target)
            if not note:
                assert exported
                assert equalized
                assert ranges
                assert evaluation
                assert settings.measure
                folder.mkdir(parents=True)
                shipped = validation.shipped
                sources = KitSources(
                    name=settings.name,
                    target=target,
                    engines=tuple(candidate.engine for candidate in validation.candidates),
                    gates=tuple((g.gate, g.limit) for g in shipped.gates if not g.gate.endswith(EMULATED)),
                    metrics=tuple(metric.name for metric in shipped.metrics),
                    reference=exported,
                    pruned=student if settings.pruned else None,
                    implicit=implicit_of(equalized, ranges, plans, encodings) if equalized and ranges else None,
                    data=evaluation,
                    axes=axes,
                    measure=settings.measure,
                    builder=builder,
                )
                pack_kit(sources, folder)
        else:
            name, triton = settings.name, settings.triton
            note = pack(engine, target, folder, name=name, form=form, axes=axes, triton=triton, builder=builder)
        if note and (form != FORMAT or len(settings.formats) == 1):
            notes.append(note)
        if not note:
            folders[form] = folder
    return Packages(target.name, folders, tuple(notes))
