"""The engine that is shipped, packed for a server."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.target import Target

from ..config import BuildConfig, PackageFormat, TritonSettings
from ..packaging import pack
from ..stage import StageSettings, stage
from ..validation import Packages, Validation


class PackageSettings(StageSettings):
    """Settings of the package stage."""

    name: str
    formats: tuple[PackageFormat, ...]
    triton: TritonSettings

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        """From the keys `name` and `package` and the section `triton`."""
        return cls(name=config.name, formats=config.package, triton=config.triton)


@stage(output="packages", version=3, leaves=".", scope="target", libs=())
def package(
    validation: Validation,
    target: Target,
    axes: dict[str, dict[str, AxisRange]],
    settings: PackageSettings,
    out: Path,
) -> Packages:
    """Write a Triton model repository for each format: `FORMAT/TARGET/NAME`."""
    engine = validation.shipped.engine
    folders: dict[str, Path] = {}
    notes = []
    for form in settings.formats:
        folder = out / form / target.name
        note = pack(engine, target, folder, name=settings.name, form=form, axes=axes, triton=settings.triton)
        if note:
            notes.append(note)
        else:
            folders[form] = folder
    return Packages(target.name, folders, tuple(notes))
