"""The build folder: what the stages made, copied out of the store, with reports and a manifest."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trtcompress_graph.target import Engine

from .compiling import ENGINE, write_engine
from .digests import file_digest
from .files import place, sweep, write_text
from .kept_versions import has_versions, left_by_rollback, put_beside
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
        told: of repositories, `FORMAT/TARGET`, that got a new version, or hold this one and do not serve it.
    """

    build_dir: Path
    folders: Mapping[Path, Path]
    files: Mapping[str, Mapping[str, Any]]
    removed: tuple[str, ...] = ()
    told: Mapping[str, str] = field(default_factory=dict)

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

    A repository that holds versions (see `has_versions`) stays, and gets what was packed as one more, unless a rollback
    left that there.

    Raises:
        StoreError: the build folder cannot be written.
        TrtCompressError: a new version cannot be put beside those that are there (see `add_versions`).
    """
    folders = {
        store.path(ran.key): build_dir / ran.step.stage.leaves.format(subject=ran.step.subject) for ran in run.steps
    }
    values = ((store.path(ran.key), run.values[ran.step.output]) for ran in run.steps)
    engines = {folders[entry] / ENGINE: value for entry, value in values if isinstance(value, Engine)}
    with store_errors(build_dir):
        sources, states = _stored_files(folders)
        ours = {path.relative_to(build_dir).as_posix() for path in (*sources, *engines)}
        names = _names(build_dir / MANIFEST) | _names(build_dir / PLACING)
        held = _with_versions(names | ours, build_dir)
        before = {name for name in names if _repository(name) not in held}
        write_text(build_dir / PLACING, json.dumps({"files": sorted(before | ours)}))
        for path, source in sources.items():
            if _repository(path.relative_to(build_dir).as_posix()) not in held:
                place(source, path)
        for path, engine in engines.items():
            write_engine(_moved(engine, folders), path.parent)
            states[path] = {"sha256": file_digest(path), "size": path.stat().st_size}
        _remove(build_dir, before - ours)
        files = {path.relative_to(build_dir).as_posix(): state for path, state in states.items()}
        told = {}
        for repository in sorted(held & {_repository(name) for name in ours}):
            told[repository] = _as_new_version(build_dir / repository, sources, build_dir)
            files = {name: state for name, state in files.items() if _repository(name) != repository}
            files |= files_in(build_dir, build_dir / repository)
    return Placed(build_dir, folders, files, _gone(before, ours), told)


def files_in(build_dir: Path, folder: Path) -> dict[str, Mapping[str, Any]]:
    """Path in the build of each file of a folder -> {sha256, size}, as the manifest has them."""
    return {
        path.relative_to(build_dir).as_posix(): {"sha256": file_digest(path), "size": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _as_new_version(repository: Path, sources: Mapping[Path, Path], build_dir: Path) -> str:
    """Put what was packed beside the versions that are there; returns what is to be said of it."""
    # On the disk of the build, since it can be gigabytes; no links, since ONNX data may not lie outside of its folder
    with TemporaryDirectory(prefix=".packed-", suffix=".partial", dir=build_dir) as made:
        for path, source in sources.items():
            if path.is_relative_to(repository):
                place(source, Path(made, path.relative_to(repository)))
        return left_by_rollback(Path(made), repository) or put_beside(Path(made), repository)


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


def _with_versions(names: set[str], build_dir: Path) -> set[str]:
    """The repositories among these files that hold versions: what lies in them could not be made again."""
    found = {_repository(name) for name in names if name.startswith(_REPOSITORIES)}
    return {place for place in found if has_versions(build_dir / place)}


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
