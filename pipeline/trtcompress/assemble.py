"""The build folder: what the stages made, copied out of the store, with reports and a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtcompress_graph.target import Engine

from .compiling import ENGINE, write_engine
from .files import place
from .outcome import Deployed
from .runner import VALUE, Ran, Run
from .store import ENTRY, Store, store_errors
from .validation import Validation, deployed_file

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the artifacts of a build lie now.

    Attributes:
        folders: store entry -> folder in the build.
        files: path in the build -> {sha256, size}.
    """

    build_dir: Path
    folders: Mapping[Path, Path]
    files: Mapping[str, Mapping[str, Any]]

    def find(self, path: Path) -> Path:
        """Path in the build of a file in the store."""
        for entry, folder in self.folders.items():
            if path.is_relative_to(entry):
                return folder / path.relative_to(entry)
        return path


def place_artifacts(run: Run, store: Store, build_dir: Path) -> Placed:
    """Copy what each step made to its place; what an earlier build left there and this one did not make goes.

    Raises:
        StoreError: the build folder cannot be written.
    """
    folders: dict[Path, Path] = {}
    files: dict[str, dict[str, Any]] = {}
    with store_errors(build_dir):
        before = _files_before(build_dir)
        for ran in run.steps:
            entry, folder = store.path(ran.key), build_dir / ran.step.stage.leaves.format(subject=ran.step.subject)
            folders[entry] = folder
            for name, state in json.loads((entry / ENTRY).read_text(encoding="utf-8"))["files"].items():
                if name != VALUE:
                    place(entry / name, folder / name)
                    relative = (folder / name).relative_to(build_dir).as_posix()
                    files[relative] = {"sha256": state["sha256"], "size": state["size"]}
        placed = Placed(build_dir, folders, files)
        for ran in run.steps:
            value = run.values[ran.step.output]
            if isinstance(value, Engine):
                _write_engine(value, ran, placed)
        _remove(build_dir, before - files.keys())
    return placed


def _write_engine(engine: Engine, ran: Ran, placed: Placed) -> None:
    folder = placed.build_dir / ran.step.stage.leaves.format(subject=ran.step.subject)
    graph = replace(engine.graph, path=placed.find(engine.graph.path))
    write_engine(replace(engine, path=placed.find(engine.path), graph=graph), folder)


def _files_before(build_dir: Path) -> set[str]:
    try:
        return set(json.loads((build_dir / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _remove(build_dir: Path, names: set[str]) -> None:
    for name in names:
        path = build_dir / name
        if not path.resolve().is_relative_to(build_dir.resolve()):
            continue  # the manifest was edited by hand
        path.unlink(missing_ok=True)
        (path.parent / ENGINE).unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            for parent in path.relative_to(build_dir).parents[:-1]:
                (build_dir / parent).rmdir()


def deployed(validations: Mapping[str, Validation], placed: Placed) -> dict[str, Deployed]:
    """For each target the engine file that is shipped, in the build folder."""
    found = {}
    for target, validation in validations.items():
        path, digest = deployed_file(validation.shipped.engine)
        found[target] = Deployed(placed.find(path), digest)
    return found
