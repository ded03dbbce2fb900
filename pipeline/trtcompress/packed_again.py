"""Model repositories that lie in a build folder, packed again where another engine is shipped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtcompress_graph.errors import ModelError, StoreError, TrtCompressError
from trtcompress_graph.target import Engine

from .assemble import MANIFEST, files_in
from .compiling import read_engine
from .config import BuildConfig, PackageFormat
from .files import write_text
from .kit_packing import FORMAT
from .packaging import TOWERS_ELSEWHERE, how_to_go_on, with_brought_plan
from .served_plan import put, serves
from .store import store_errors

SERVED: tuple[PackageFormat, ...] = ("triton",)
"""Formats that serve a plan of TensorRT; `triton-python` does not, and a kit builds its own."""

Folders = Mapping[PackageFormat, Path]


@dataclass(frozen=True, slots=True)
class Stale:
    """Repositories that serve another engine than the one that is shipped, whose plan is here."""

    plan: Path
    folders: Folders


def tell_stale(build_dir: Path, facts: dict[str, Any], target: str, config: BuildConfig) -> Stale | None:
    """Say in the record of a build which repositories of a target do not serve the engine that is shipped.

    A kit holds all engines of its device, and stays. An engine that is gone from the build folder is told, too.

    Args:
        build_dir: of the build.
        facts: its record, of which the notes on packages are brought up to date.
        target: whose engine may be another one now.
        config: of the build.

    Returns:
        What `pack_stale` can pack again; None where that is nothing.
    """
    entry = next((package for package in facts["packages"] if package["target"] == target), None)
    forms: list[PackageFormat] = [form for form in config.package if form != FORMAT]
    if entry is None or not forms:
        return None
    encoding = next(one["shipped"] for one in facts["validations"] if one["target"] == target)
    found, lacks = _shipped(build_dir, target, encoding)
    stale: dict[PackageFormat, Path] = {}
    for form in forms:
        folder = build_dir / entry["folders"][form] if form in entry["folders"] else None
        if folder is None and not any(_is_of(note, form) for note in entry["notes"]):
            continue
        if why := _never(form, config):
            _set_note(entry, form, f"not packed; {why}")
            continue
        if folder is not None and found is not None and found.built and serves(folder, config.name, found.path):
            _set_note(entry, form, "")
            note_packed(build_dir, {form: folder})  # it may have been packed by hand
            continue
        where = f"{folder} serves another engine than {encoding}" if folder else "not packed"
        step = _next_step(found, build_dir, folder) if found else "build again, then import the results again"
        _set_note(entry, form, "; ".join(text for text in (where, lacks, step) if text))
        if folder is not None and found is not None and found.built:
            stale[form] = folder
    return Stale(found.path, stale) if found is not None and stale else None


def pack_stale(
    build_dir: Path, facts: dict[str, Any], target: str, stale: Stale, name: str, base: Path | None = None
) -> None:
    """Pack repositories again, and take the notes of those that were packed from the record.

    Where it fails the repository is left as it was, and the note says why.

    Args:
        build_dir: of the build.
        facts: its record.
        target: whose repositories they are.
        stale: see `tell_stale`.
        name: under which clients ask for the model.
        base: folder that relative paths of the config start from; the current one where None.

    Raises:
        StoreError: they cannot be written.
    """
    entry = next(package for package in facts["packages"] if package["target"] == target)
    for form, folder in stale.folders.items():
        try:
            pack_shipped(build_dir, entry, {form: folder}, stale.plan, name, base)
        except StoreError:
            raise
        except TrtCompressError as error:
            entry["notes"] = [
                f"{note}; it was not packed by itself: {_with_hint(error)}" if _is_of(note, form) else note
                for note in entry["notes"]
            ]


def pack_shipped(
    build_dir: Path, entry: dict[str, Any], folders: Folders, plan: Path, name: str, base: Path | None
) -> list[str]:
    """Let repositories of a target serve the engine that is shipped, and say so in the manifest and the record.

    Args:
        build_dir: of the build.
        entry: what the record says of the target's packages.
        folders: the repositories.
        plan: of the engine.
        name: under which clients ask for the model.
        base: folder that relative paths of the config start from; the current one where None.

    Returns:
        What is to be known of how it was put there.

    Raises:
        TrtCompressError: one cannot be packed; it is left as it was.
    """
    said = []
    for form, folder in folders.items():
        told = put(build_dir, form, entry["target"], folder, name, plan, base)
        entry["folders"][form] = folder.relative_to(build_dir).as_posix()
        _set_note(entry, form, told)
        note_packed(build_dir, {form: folder})
        said += [told] if told else []
    return said


def note_packed(build_dir: Path, folders: Folders) -> None:
    """Name the files of repositories in the manifest: a later build that makes none removes them.

    Raises:
        StoreError: it cannot be written.
    """
    manifest = json.loads((build_dir / MANIFEST).read_text(encoding="utf-8"))
    tops = tuple(f"{folder.relative_to(build_dir).as_posix()}/" for folder in folders.values())
    files = {name: state for name, state in manifest["files"].items() if not name.startswith(tops)}
    for folder in folders.values():
        files |= files_in(build_dir, folder)
    with store_errors(build_dir):
        write_text(build_dir / MANIFEST, json.dumps({**manifest, "files": files}, indent=1) + "\n")


def _shipped(build_dir: Path, target: str, encoding: str) -> tuple[Engine | None, str]:
    """The engine that is shipped, with its plan where that is here; None where it is not here. And what is wrong."""
    try:
        engine = read_engine(build_dir / "engines" / target / encoding, build_dir)
    except TrtCompressError as error:
        return None, f"the engine {encoding} cannot be read at {error.where}: {error.what}"
    try:
        return with_brought_plan(engine), ""
    except ModelError as error:
        return engine, error.what


def _never(form: PackageFormat, config: BuildConfig) -> str:
    """Why an engine that was built elsewhere is not packed in this form, whatever is brought; empty where it is."""
    if form not in SERVED:
        return f"{form} does not serve an engine of TensorRT: --set 'package=[{SERVED[0]}]'"
    if config.triton.towers:
        return TOWERS_ELSEWHERE
    return ""


def _is_of(note: str, form: PackageFormat) -> bool:
    return note.startswith(f"{form}:")


def _set_note(entry: dict[str, Any], form: PackageFormat, told: str) -> None:
    """The note on a repository in place of what was said of it; empty: there is nothing to say."""
    notes = [note for note in entry["notes"] if not _is_of(note, form)]
    entry["notes"] = [*notes, f"{form}: {told}"] if told else notes


def _with_hint(error: TrtCompressError) -> str:
    return f"{error.what}; {error.hint}" if error.hint else error.what


def _next_step(engine: Engine, build_dir: Path, folder: Path | None) -> str:
    """What to type next."""
    if not engine.built:
        return how_to_go_on(engine, str(build_dir), str(folder or "repository"))
    return f"trtcompress package {build_dir} --target {engine.target} -o {folder or 'repository'}"
