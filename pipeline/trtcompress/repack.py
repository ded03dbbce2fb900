"""`trtcompress package`: the engines of a build folder, packed for a server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from trtcompress_graph.errors import CompileError, UsageError

from .assemble import MANIFEST
from .config import BuildConfig, PackageFormat
from .outputs import PackagedModel
from .packaging import BROUGHT, pack, with_brought_plan
from .revalidate import failed_gates, shipped_engines


@dataclass(frozen=True, slots=True)
class Repacked:
    """What was written, what is to be said of it, and for how many targets nothing could be written."""

    packages: tuple[PackagedModel, ...]
    notes: tuple[str, ...]
    missing: int


def repack(build_dir: Path, form: PackageFormat, names: tuple[str, ...], repository: Path) -> Repacked:
    """Write model repositories: `repository` itself for one target, `repository/TARGET` for several.

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
    failed = failed_gates(build_dir)
    packed, notes, said = [], [], []
    for engine, target in wanted:
        folder = repository if len(wanted) == 1 else repository / target.name
        engine = with_brought_plan(engine)
        note = pack(
            engine,
            target,
            folder,
            name=config.name,
            form=form,
            axes=config.model.axes,
            triton=config.triton,
            build_dir=str(build_dir.resolve()),
        )
        if note:
            notes.append(f"{target.name}: {note}")
        else:
            packed.append(
                PackagedModel(target=target.name, format=form, repository=str(folder), model=str(folder / config.name))
            )
            said += [f"warning: {target.name}: a gate failed in the build: {gate}" for gate in failed[target.name]]
            if engine.path.name == BROUGHT:
                said.append(f"{target.name}: packed {engine.path}, which was built elsewhere: it was not run here")
    if not packed:
        raise CompileError("nothing could be packed", where=str(build_dir), hint="\n".join(notes))
    return Repacked(tuple(packed), (*notes, *said), len(notes))


def _config(manifest: Path) -> BuildConfig:
    try:
        return BuildConfig.model_validate(json.loads(manifest.read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "the manifest of this build is missing or damaged",
            where=str(manifest),
            hint="build it again: trtcompress build CONFIG.yaml",
        ) from error
