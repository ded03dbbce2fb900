"""`trtcompress package`: the engines of a build folder, packed for a server or as kits for devices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from trtcompress_engines.backends.trt_recipe import TIMING_CACHE
from trtcompress_graph.errors import CompileError, UsageError
from trtcompress_graph.target import Engine, Target

from .assemble import MANIFEST
from .builder import DEFAULT
from .config import BuildConfig, PackageFormat
from .kit_packing import FORMAT
from .notes_once import once
from .outputs import PackagedModel
from .packaging import BROUGHT, pack, with_brought_plan
from .repack_steps import around_of
from .revalidate import failed_gates, shipped_engines


@dataclass(frozen=True, slots=True)
class Repacked:
    """What was written, what is to be said of it, and for how many targets nothing could be written."""

    packages: tuple[PackagedModel, ...]
    notes: tuple[str, ...]
    missing: int


def repack(
    build_dir: Path,
    form: PackageFormat,
    names: tuple[str, ...],
    repository: Path,
    *,
    archive: bool = False,
    base: Path | None = None,
) -> Repacked:
    """Write model repositories or kits: `repository` itself for one target, `repository/TARGET` for several.

    Args:
        build_dir: of the build.
        form: kind of package.
        names: of the targets; all where empty.
        repository: where to write.
        archive: a kit as `repository.tar.gz`.
        base: folder that relative paths of the config start from; the current one where None.

    Raises:
        UsageError: the build has no such target, or this is no whole build folder.
        CompileError: nothing could be packed.
    """
    engines = shipped_engines(build_dir)
    config = _config(build_dir / MANIFEST)
    there = [target.name for _, target in engines]
    for name in names:
        if name not in there:
            raise UsageError(f"the build has no target '{name}'", where="--target", hint=f"it has: {', '.join(there)}")
    wanted = [(engine, target) for engine, target in engines if not names or target.name in names]
    if form == FORMAT and not names:  # a build for servers too has kits for its devices alone
        wanted = [(engine, target) for engine, target in wanted if target.how == "kit"] or wanted
    failed = failed_gates(build_dir)
    packed: list[PackagedModel] = []
    missing: list[tuple[Target, str]] = []
    said = []
    for engine, target in wanted:
        folder = repository if len(wanted) == 1 else repository / target.name
        engine = with_brought_plan(engine)
        if form == FORMAT:
            note, place = _kit(build_dir, config, target, folder, archive)
        else:
            note, place = _served(build_dir, config, engine, target, folder, form, base)
        if note:
            missing.append((target, note))
        else:
            packed.append(PackagedModel(target=target.name, format=form, repository=str(folder), model=str(place)))
            said += [f"warning: {target.name}: a gate failed in the build: {gate}" for gate in failed[target.name]]
            if form != FORMAT and engine.path.name == BROUGHT:
                said.append(f"{target.name}: packed {engine.path}, which was built elsewhere: it was not run here")
    notes = once(missing)
    if not packed:
        raise CompileError("nothing could be packed", where=str(build_dir), hint="\n".join(notes))
    return Repacked(tuple(packed), (*notes, *said), len(missing))


def _served(
    build_dir: Path,
    config: BuildConfig,
    engine: Engine,
    target: Target,
    folder: Path,
    form: PackageFormat,
    base: Path | None,
) -> tuple[str, Path]:
    """Why nothing was packed, or empty; and the model's folder."""
    from .builder import recorded
    from .kit_build import settings_of

    timing = engine.graph.path.with_name(TIMING_CACHE)
    builder = recorded(target, settings_of(config, target), config, timing) if config.triton.towers else DEFAULT
    note = pack(
        engine,
        target,
        folder,
        name=config.name,
        form=form,
        axes=config.model.axes,
        triton=config.triton,
        builder=builder,
        around=around_of(build_dir, config, base),
        build_dir=str(build_dir.resolve()),
    )
    return note, folder / config.name


def _kit(build_dir: Path, config: BuildConfig, target: Target, folder: Path, archive: bool) -> tuple[str, Path]:
    """Why no kit was packed, or empty; and the kit's folder or archive."""
    from .kit_build import sources_of
    from .kit_digests import note_kit
    from .kit_files import put_archive, put_kit
    from .kit_packing import no_kit_for

    if note := no_kit_for(target):
        return note, folder
    sources = sources_of(build_dir, config, target)
    place, digest = (put_archive if archive else put_kit)(sources, folder)
    note_kit(build_dir, target.name, digest)
    return "", place


def _config(manifest: Path) -> BuildConfig:
    try:
        return BuildConfig.model_validate(json.loads(manifest.read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "the manifest of this build is missing or damaged",
            where=str(manifest),
            hint="build it again: trtcompress build CONFIG.yaml",
        ) from error
