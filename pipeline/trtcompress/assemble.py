"""The build folder: what the stages made, copied out of the store, with reports and a manifest."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtcompress_graph.target import Engine

from .compiling import ENGINE, write_engine
from .digests import file_digest
from .files import place, sweep, write_text
from .kept_versions import has_versions
from .outcome import Deployed
from .runner import VALUE, Run
from .store import ENTRY, Store, store_errors
from .validation import Validation, deployed_file

MANIFEST = "manifest.json"
PLACING = ".placing.json"
"""Names of the files of a build that is being put in place: after a kill, the next build knows them for its own."""

_REPOSITORIES = ("triton/", "triton-python/")


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the artifacts of a build lie now.

    Attributes:
        folders: store entry -> folder in the build.
        files: path in the build -> {sha256, size}.
        removed: folders that an earlier build left and this one did not make.
    """

    build_dir: Path
    folders: Mapping[Path, Path]
    files: Mapping[str, Mapping[str, Any]]
    removed: tuple[str, ...] = ()

    def find(self, path: Path) -> Path:
        """Path in the build of a file in the store."""
        return _find(path, self.folders)


@contextmanager
def only_writer(build_dir: Path) -> Iterator[None]:
    """Be the only build that writes this folder, from the first artifact to the manifest; another one waits.

    Raises:
        StoreError: the build folder cannot be written.
    """
    with store_errors(build_dir):
        build_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(build_dir, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # the kernel drops it when the process dies
        with store_errors(build_dir):
            sweep(build_dir)
        yield
        (build_dir / PLACING).unlink(missing_ok=True)
    finally:
        os.close(handle)


def place_artifacts(run: Run, store: Store, build_dir: Path) -> Placed:
    """Copy what each step made to its place; what an earlier build left there and this one did not make goes.

    A repository that holds versions beside each other stays (see `has_versions`).

    Raises:
        StoreError: the build folder cannot be written.
    """
    folders = {
        store.path(ran.key): build_dir / ran.step.stage.leaves.format(subject=ran.step.subject) for ran in run.steps
    }
    values = ((store.path(ran.key), run.values[ran.step.output]) for ran in run.steps)
    engines = {folders[entry] / ENGINE: value for entry, value in values if isinstance(value, Engine)}
    with store_errors(build_dir):
        sources, states = _stored_files(folders)
        ours = {path.relative_to(build_dir).as_posix() for path in (*sources, *engines)}
        before = _without_versions(_names(build_dir / MANIFEST) | _names(build_dir / PLACING), ours, build_dir)
        write_text(build_dir / PLACING, json.dumps({"files": sorted(before | ours)}))
        for path, source in sources.items():
            place(source, path)
        for path, engine in engines.items():
            write_engine(_moved(engine, folders), path.parent)
            states[path] = {"sha256": file_digest(path), "size": path.stat().st_size}
        _remove(build_dir, before - ours)
    files = {path.relative_to(build_dir).as_posix(): state for path, state in states.items()}
    return Placed(build_dir, folders, files, _gone(before, ours))


def _stored_files(folders: Mapping[Path, Path]) -> tuple[dict[Path, Path], dict[Path, Mapping[str, Any]]]:
    """For each file in the build folder where it lies in the store, and its digest and size."""
    sources: dict[Path, Path] = {}
    states: dict[Path, Mapping[str, Any]] = {}
    for entry, folder in folders.items():
        for name, state in json.loads((entry / ENTRY).read_text(encoding="utf-8"))["files"].items():
            if name != VALUE:
                sources[folder / name] = entry / name
                states[folder / name] = {"sha256": state["sha256"], "size": state["size"]}
    return sources, states


def _moved(engine: Engine, folders: Mapping[Path, Path]) -> Engine:
    graph = replace(engine.graph, path=_find(engine.graph.path, folders))
    return replace(engine, path=_find(engine.path, folders), graph=graph)


def _find(path: Path, folders: Mapping[Path, Path]) -> Path:
    for entry, folder in folders.items():
        if path.is_relative_to(entry):
            return folder / path.relative_to(entry)
    return path


def _names(note: Path) -> set[str]:
    try:
        return {str(name) for name in json.loads(note.read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _without_versions(names: set[str], ours: set[str], build_dir: Path) -> set[str]:
    """Without the files of repositories with versions where this build packs none: they could not be made again."""
    packed = {_repository(name) for name in ours}
    others = {_repository(name) for name in names if name.startswith(_REPOSITORIES)} - packed
    held = {place for place in others if has_versions(build_dir / place)}
    return {name for name in names if _repository(name) not in held}


def _repository(name: str) -> str:
    """`FORMAT/TARGET` of a file in a build folder."""
    return "/".join(name.split("/")[:2])


def _remove(build_dir: Path, names: set[str]) -> None:
    for name in names:
        path = build_dir / name
        if path.is_dir() or not path.resolve().is_relative_to(build_dir.resolve()):
            continue  # the manifest was edited by hand
        path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            for parent in path.relative_to(build_dir).parents[:-1]:
                (build_dir / parent).rmdir()


def _gone(before: set[str], ours: set[str]) -> tuple[str, ...]:
    """The folders, down to `engines/<target>`, of which nothing is left."""

    def folders(names: set[str]) -> set[str]:
        return {"/".join(name.split("/")[:-1][:2]) for name in names if "/" in name}

    return tuple(sorted(folders(before) - folders(ours)))


def deployed(validations: Mapping[str, Validation], placed: Placed) -> dict[str, Deployed]:
    """For each target the engine file that is shipped, in the build folder."""
    found = {}
    for target, validation in validations.items():
        path, digest = deployed_file(validation.shipped.engine)
        found[target] = Deployed(placed.find(path), digest)
    return found
