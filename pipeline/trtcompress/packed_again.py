"""Model repositories that lie in a build folder, packed again where another engine is shipped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtcompress_graph.errors import ModelError, StoreError, TrtCompressError
from trtcompress_graph.target import Engine

from .assemble import MANIFEST
from .compiling import read_engine
from .config import PackageFormat
from .digests import file_digest
from .files import write_text
from .kit_packing import FORMAT
from .packaging import BROUGHT, how_to_go_on, with_brought_plan
from .repack import repack
from .store import store_errors

Folders = Mapping[PackageFormat, Path]


def tell_stale(build_dir: Path, facts: dict[str, Any], target: str, formats: tuple[PackageFormat, ...]) -> Folders:
    """Say in the record of a build which repositories of a target do not serve the engine that is shipped.

    A kit holds all engines of its device, and stays.

    Args:
        build_dir: of the build.
        facts: its record, of which the notes on packages are brought up to date.
        target: whose engine may be another one now.
        formats: that the config asks for.

    Returns:
        Those that `pack_stale` can pack again, since the plan of the engine is here.

    Raises:
        UnusableInputError: the engine that is shipped is not in the build folder, or is damaged.
    """
    entry = next((package for package in facts["packages"] if package["target"] == target), None)
    served = [form for form in formats if form != FORMAT]
    if entry is None or not served:
        return {}
    encoding = next(one["shipped"] for one in facts["validations"] if one["target"] == target)
    engine = read_engine(build_dir / "engines" / target / encoding, build_dir)
    lacks = ""
    try:
        engine = with_brought_plan(engine)
    except ModelError as error:
        lacks = f"{error.what}; "
    notes = {note.partition(":")[0]: note for note in entry["notes"]}
    stale: dict[PackageFormat, Path] = {}
    for form in served:
        folder = build_dir / entry["folders"][form] if form in entry["folders"] else None
        if folder is None and form not in notes:
            continue
        notes.pop(form, None)
        if folder is not None and engine.built and serves(folder, engine.path):
            note_packed(build_dir, {form: folder})  # it may have been packed by hand
            continue
        where = f"{folder} serves another engine than {encoding}" if folder else "not packed"
        notes[form] = f"{form}: {where}; {lacks}{_next_step(engine, form, build_dir, folder)}"
        if folder is not None and engine.built:
            stale[form] = folder
    entry["notes"] = list(notes.values())
    return stale


def pack_stale(build_dir: Path, facts: dict[str, Any], target: str, stale: Folders) -> None:
    """Pack repositories again, each model in one step, and take the notes of those that were packed from the record.

    Where it fails the repository is left as it was, and the note says why.

    Raises:
        StoreError: they cannot be written.
    """
    entry = next(package for package in facts["packages"] if package["target"] == target)
    packed: list[PackageFormat] = []
    for form, folder in stale.items():
        try:
            repack(build_dir, form, (target,), folder)
            packed.append(form)
        except StoreError:
            raise
        except TrtCompressError as error:
            entry["notes"] = [
                f"{note}; it was not packed by itself: {error.what}" if note.startswith(f"{form}:") else note
                for note in entry["notes"]
            ]
    entry["notes"] = [note for note in entry["notes"] if note.partition(":")[0] not in packed]
    note_packed(build_dir, stale)


def note_packed(build_dir: Path, folders: Folders) -> None:
    """Name the files of repositories in the manifest: a later build that makes none removes them.

    Raises:
        StoreError: it cannot be written.
    """
    manifest = json.loads((build_dir / MANIFEST).read_text(encoding="utf-8"))
    tops = tuple(f"{folder.relative_to(build_dir).as_posix()}/" for folder in folders.values())
    files = {name: state for name, state in manifest["files"].items() if not name.startswith(tops)}
    for path in (path for folder in folders.values() for path in sorted(folder.rglob("*")) if path.is_file()):
        state = {"sha256": file_digest(path), "size": path.stat().st_size}
        files[path.relative_to(build_dir).as_posix()] = state
    with store_errors(build_dir):
        write_text(build_dir / MANIFEST, json.dumps({**manifest, "files": files}, indent=1) + "\n")


def serves(folder: Path, plan: Path) -> bool:
    """Whether a plan lies in a repository."""
    digest = file_digest(plan)
    return any(file_digest(path) == digest for path in folder.rglob(BROUGHT))


def _next_step(engine: Engine, form: PackageFormat, build_dir: Path, folder: Path | None) -> str:
    """What to type next."""
    if not engine.built:
        return how_to_go_on(engine, form, str(build_dir), str(folder or "repository"))
    more = "" if form == "triton" else f" --format {form}"
    return f"trtcompress package {build_dir} --target {engine.target}{more} -o {folder or 'repository'}"
